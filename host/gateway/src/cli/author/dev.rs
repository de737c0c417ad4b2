//! `witgate dev`: builds a filter, runs it in a gateway, and does so again after each change.
//!
//! The gateway is a part of this process and watches the component and its gateway.yaml, which are
//! in a folder of the user. So a change takes the way that it takes in production: a new file is
//! compiled and put into service, and a component that is refused leaves the old one in service.
//! What is saved: the process of the tools stays, the component is not optimized, and functions
//! that were compiled before are not compiled again.
//! This module does not know: how a filter is built, how the gateway reloads.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use componentize::BuiltComponent;
use notify::{RecursiveMode, Watcher as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use witgate_examples::{Action, Example};

use super::build::build_dev;
use super::load::{ComponentLoader, name_of};
use super::{report, test};
use crate::cli::output::{print, print_error};
use crate::control::config_source::ConfigSource;
use crate::gateway::Gateway;
use crate::telemetry::init_log;

/// A burst of events ends when there is none for this time: an editor writes a file in steps.
const QUIET_TIME: Duration = Duration::from_millis(15);
/// How long the gateway may take to compile a component.
const LIVE_TIMEOUT: Duration = Duration::from_secs(120);

/// The options of `witgate dev`.
#[derive(Clone, clap::Args)]
pub(in crate::cli) struct Options {
    /// The folder of the filter
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// Where the gateway listens
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: String,
    /// Where requests go; the default is an upstream that answers with the request
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// A value of the filter's configuration; the default is the configuration of its first example
    #[arg(long = "set", value_name = "KEY=VALUE")]
    config: Vec<String>,
}

/// The filter, and where its component and its gateway.yaml are.
struct Project {
    source: PathBuf,
    /// Holds the component, gateway.yaml and the state directory.
    folder: PathBuf,
}

pub(super) fn dev(options: &Options) -> Result<(), String> {
    init_log("warn,filter=trace", false)?;
    componentize::use_embedded_files().map_err(|error| format!("{error:#}"))?;
    let project = Project::open(&options.folder)?;
    project.check_options(options)?;
    let (sender, events) = mpsc::channel();
    // Dropping the watcher would end it.
    let _watcher = watch(&project.source, sender)?;
    let component = first_build(&project, &events)?;
    project.write_config(options, &component)?;
    let source = ConfigSource::file(project.config_file());
    let text = source.read()?;
    let config = source.parse(&text)?;
    let gateway = Gateway::start(config, source, text, false).map_err(|error| error.to_string())?;
    let url = gateway.listeners.first().map(|(_, url)| url.clone()).unwrap_or_default();
    let served = gateway.served_filters();
    let loader = ComponentLoader::with_state(project.folder.join("state"))?;
    print(format_args!("live at {url}; a change of {} is live after it is saved; ^C ends", project.source.display()))?;
    print(try_command(&url, &componentize::read_examples(&project.source).unwrap_or_default()))?;
    if component.manifest.services.iter().any(|service| service == "http") {
        print("note calls of other services are denied here: grant them in a gateway.yaml, and use `witgate run`")?;
    }
    run_examples(&loader, &component.file);
    let options = options.clone();
    let follow = move || {
        while let Ok(began) = next_change(&events) {
            // The mistakes have been printed; the old version stays in service.
            let Ok(component) = build_dev(&project.source, &project.folder, false) else { continue };
            let built = began.elapsed();
            if let Err(why) = project.write_config(&options, &component) {
                print_error(why);
            }
            report_live(&component, &served, began, built);
            run_examples(&loader, &component.file);
        }
    };
    std::thread::Builder::new().name("dev".into()).spawn(follow).map_err(|error| error.to_string())?;
    gateway.run().map_err(|error| error.to_string())
}

impl Options {
    /// The filter's configuration: from the command line, else from the first example that has one.
    fn filter_config(&self, examples: &[Example]) -> Result<Map<String, Value>, String> {
        if self.config.is_empty() {
            let example = examples.iter().find(|example| !example.config.is_empty());
            return Ok(example.map(|example| example.config.clone().into_iter().collect()).unwrap_or_default());
        }
        let entry = |text: &String| -> Result<(String, Value), String> {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("--set {text}: write KEY=VALUE"))?;
            Ok((key.to_owned(), Value::from(value)))
        };
        self.config.iter().map(entry).collect()
    }
}

impl Project {
    fn open(source: &Path) -> Result<Self, String> {
        let shown = source.display();
        if !source.join("filter.toml").exists() {
            return Err(format!(
                "{shown}: there is no filter.toml: name the folder of a filter, or make one with `witgate new`"
            ));
        }
        let source = source.canonicalize().map_err(|error| format!("{shown}: {error}"))?;
        // Two filters of the same name have folders of their own.
        let digest = hex::encode(Sha256::digest(source.as_os_str().as_encoded_bytes()));
        let user = componentize::user_folder().map_err(|error| format!("{error:#}"))?;
        let folder = user.join("dev").join(&digest[..16]);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { source, folder })
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("gateway.yaml")
    }

    /// Refuses options that are wrong before a build, which takes long.
    fn check_options(&self, options: &Options) -> Result<(), String> {
        let text = self.config(options, "filter", &self.folder.join("filter.wasm"), &[])?.to_string();
        let source = ConfigSource::text(&text, self.folder.clone());
        source.parse(&source.read()?).map(drop).map_err(|errors| {
            let option = |line: &str| {
                let options =
                    [("listeners[0].address: ", "--listen: "), ("upstreams.upstream.endpoints[0]: ", "--upstream: ")];
                let found =
                    options.iter().find_map(|(key, option)| Some(format!("{option}{}", line.split_once(key)?.1)));
                found.unwrap_or_else(|| line.to_owned())
            };
            errors.lines().map(option).collect::<Vec<_>>().join("\n")
        })
    }

    /// Writes a gateway.yaml that grants what the manifest asks for, if it differs from the present
    /// one.
    fn write_config(&self, options: &Options, component: &BuiltComponent) -> Result<(), String> {
        let name = name_of(Some(&component.manifest));
        let config = self.config(options, name, &component.file, &component.manifest.services)?;
        let (path, text) = (self.config_file(), format!("{config:#}\n"));
        if std::fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            return Ok(());
        }
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn config(&self, options: &Options, name: &str, file: &Path, services: &[String]) -> Result<Value, String> {
        let examples = componentize::read_examples(&self.source).unwrap_or_default();
        let upstream = match &options.upstream {
            Some(url) => json!({ "endpoints": [url] }),
            None => json!({ "builtin": "echo" }),
        };
        // JSON is YAML.
        Ok(json!({
            "listeners": [{ "name": "main", "address": options.listen }],
            "admin": "off",
            "state": { "directory": self.folder.join("state") },
            "log": { "access": "off", "level": "warn,filter=trace" },
            "workers": 1,
            "upstreams": { "upstream": upstream },
            "filters": { name: {
                "source": file,
                "capabilities": services,
                "config": options.filter_config(&examples)?,
            } },
            "routes": [{ "filters": [name], "upstream": "upstream" }],
        }))
    }
}

/// Builds until it succeeds; after a mistake it waits for a change.
fn first_build(project: &Project, events: &mpsc::Receiver<()>) -> Result<BuiltComponent, String> {
    loop {
        match build_dev(&project.source, &project.folder, true) {
            Ok(component) => return Ok(component),
            Err(why) => print(format_args!("{why}: waiting for a change"))?,
        }
        next_change(events)?;
    }
}

/// Sends an event for each change of the filter's files.
fn watch(source: &Path, sender: mpsc::Sender<()>) -> Result<notify::RecommendedWatcher, String> {
    let folder = source.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let Ok(event) = event else { return };
        let is_own = |path: &PathBuf| {
            let mut within = path.ancestors().take_while(|part| *part != folder);
            within.all(|part| !part.as_os_str().as_encoded_bytes().ends_with(b"~") && !componentize::is_left_out(part))
        };
        if !event.kind.is_access() && event.paths.iter().any(is_own) {
            let _ = sender.send(());
        }
    })
    .map_err(|error| format!("changes cannot be watched: {error}"))?;
    let watched = watcher.watch(source, RecursiveMode::Recursive);
    watched.map_err(|error| format!("{}: cannot be watched: {error}", source.display()))?;
    Ok(watcher)
}

/// Waits for a change and for the end of its burst. Returns when it began.
fn next_change(events: &mpsc::Receiver<()>) -> Result<Instant, String> {
    events.recv().map_err(|_| "the watcher ended".to_owned())?;
    let began = Instant::now();
    while events.recv_timeout(QUIET_TIME).is_ok() {}
    Ok(began)
}

/// Waits until the gateway serves the component, and prints how long that took.
fn report_live(
    component: &BuiltComponent,
    served: &impl Fn() -> std::collections::BTreeMap<String, String>,
    began: Instant,
    built: Duration,
) {
    let wanted = std::fs::read(&component.file).map(|bytes| hex::encode(Sha256::digest(bytes))).unwrap_or_default();
    while served().get(name_of(Some(&component.manifest))) != Some(&wanted) {
        if began.elapsed() > LIVE_TIMEOUT {
            print_error("the gateway does not serve the new version; the log says why");
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let (live, built) = (began.elapsed().as_secs_f64(), built.as_secs_f64());
    let _ = print(format_args!("live after {live:.2} s (build {built:.2} s)"));
}

/// Runs the examples that the component carries, and prints those that fail.
fn run_examples(loader: &ComponentLoader, file: &Path) {
    let run = || -> Result<(), String> {
        let loaded = loader.load(file, None)?;
        if loaded.examples.is_empty() {
            return Ok(());
        }
        let reports = test::run(&loaded, &loaded.examples)?;
        let passed = reports.iter().filter(|report| report.passed()).count();
        print(format_args!("examples  {passed} of {} passed", reports.len()))?;
        reports.iter().filter(|report| !report.passed()).try_for_each(|failed| report::print_report(failed, 0))
    };
    if let Err(why) = run() {
        print_error(why);
    }
}

/// The curl command of the first example that passes the filter, or of the first one.
fn try_command(url: &str, examples: &[Example]) -> String {
    let passes = |example: &&Example| example.expect.action == Some(Action::Proceed);
    let Some(example) = examples.iter().find(passes).or_else(|| examples.first()) else {
        return format!("try  curl -i {url}/");
    };
    let request = &example.request;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = "try  curl -i".to_owned();
    if let Some(method) = &request.method {
        command += &format!(" -X {}", quoted(method));
    }
    for (name, lines) in &request.headers {
        for line in lines.lines() {
            command += &format!(" -H {}", quoted(&format!("{name}: {line}")));
        }
    }
    if let Some(json) = &request.json {
        command += &format!(" --json {}", quoted(&json.to_string()));
    } else if let Some(body) = &request.body {
        command += &format!(" --data-raw {}", quoted(body));
    }
    let path = request.path.as_deref().unwrap_or("/");
    command + " " + &if path == "/" { format!("{url}/") } else { quoted(&format!("{url}{path}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_try_is_that_of_an_example_that_passes() -> Result<(), serde_json::Error> {
        let examples: Vec<Example> = serde_json::from_value(json!([
            { "name": "a", "expect": { "action": "respond" } },
            { "name": "b", "request": { "path": "/x?y", "headers": { "x-a": "it's" }, "json": { "k": 1 } },
              "expect": { "action": "proceed" } },
        ]))?;
        let expected = r#"try  curl -i -H 'x-a: it'\''s' --json '{"k":1}' 'http://h/x?y'"#;
        assert_eq!(try_command("http://h", &examples), expected);
        assert_eq!(try_command("http://h", &[]), "try  curl -i http://h/");
        Ok(())
    }
}
