//! The pairs of docs/how-to/migrate-from-others.md: the gateway gives the answers of the page's
//! tables, and so does nginx (`just migrations`).
//!
//! This file does not know: what the sections are about.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Client, Gateway, Response, Setup, repository, wait_until};

/// The upstream of the page.
const UPSTREAM: &str = "10.0.0.1:8080";
/// A user with the password s3cret (`htpasswd -nbB -C 4`).
const USERS: &str = "ann:$2b$04$U2NPd8Y/Y2uJ3En5NYANouk0RskGIKPC2T9H/NLFGZ.9UxEe5wTpO\n";

struct Section {
    title: String,
    yaml: String,
    nginx: Option<String>,
    rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug)]
struct Row {
    request: String,
    fields: Vec<String>,
    status: u16,
    upstream: Vec<String>,
    client: Vec<String>,
}

fn sections() -> Result<Vec<Section>> {
    let page = std::fs::read_to_string(repository().join("docs/how-to/migrate-from-others.md"))?;
    page.split("\n## ").skip(1).map(section).collect()
}

fn section(text: &str) -> Result<Section> {
    let block = |language: &str| {
        let (_, rest) = text.split_once(&format!("```{language}\n"))?;
        Some(rest.split_once("\n```")?.0.to_owned())
    };
    let title = text.lines().next().unwrap_or_default().to_owned();
    let yaml = block("yaml").with_context(|| format!("{title}: no YAML"))?;
    let rows: Vec<Row> = text.lines().filter(|line| line.starts_with("| `GET")).map(row).collect::<Result<_>>()?;
    ensure!(rows.len() >= 2, "{title}: the table has {} rows", rows.len());
    Ok(Section { title, yaml, nginx: block("nginx"), rows })
}

fn row(line: &str) -> Result<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    ensure!(cells.len() >= 3, "{line}");
    let spans = |cell: Option<&&str>| -> Vec<String> {
        cell.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    };
    let mut fields = spans(cells.first());
    let request = fields.remove(0).replacen("GET ", "", 1);
    let status = cells[1].trim().parse().with_context(|| line.to_owned())?;
    Ok(Row { request, fields, status, upstream: spans(cells.get(2)), client: spans(cells.get(3)) })
}

/// Sends the requests of a table and compares the answers.
fn check(title: &str, address: SocketAddr, rows: &[Row]) -> Result<()> {
    for row in rows {
        let fields: Vec<&str> =
            row.fields.iter().map(String::as_str).filter(|field| !field.starts_with("host: ")).collect();
        let host = row.fields.iter().find_map(|field| field.strip_prefix("host: ")).unwrap_or("test");
        let mut client = Client::over(std::net::TcpStream::connect(address)?, host);
        let response = client.get(&row.request, &fields)?;
        ensure!(response.status == row.status, "{title}: {row:?}: {} {}", response.status, response.text());
        for expected in &row.upstream {
            ensure!(upstream_got(&response, expected), "{title}: {row:?}: the upstream got {}", response.text());
        }
        for expected in &row.client {
            ensure!(client_got(&response, expected), "{title}: {row:?}: the client got {response:?}");
        }
    }
    Ok(())
}

/// Whether the request, which the upstream answers as JSON, has a path or a field.
fn upstream_got(response: &Response, expected: &str) -> bool {
    match expected.split_once(": ") {
        Some((name, value)) => response.echoed(name).as_deref() == Some(value),
        None => response.json()["path"] == expected,
    }
}

/// Whether the response has a body or a field; `*` is any value.
fn client_got(response: &Response, expected: &str) -> bool {
    if expected.starts_with('{') {
        return serde_json::from_str::<serde_json::Value>(expected).is_ok_and(|json| json == response.json());
    }
    let (name, value) = expected.split_once(": ").unwrap_or((expected, "*"));
    response.header(name).is_some_and(|found| value == "*" || found == value)
}

/// A gateway that answers with the request: the upstream of all sections.
fn echo() -> Result<Gateway> {
    Setup::new("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?.start()
}

#[test]
fn the_gateway_answers_as_the_page_says() -> Result<()> {
    let echo = echo()?;
    let sections = sections()?;
    ensure!(sections.len() == 5, "the page has {} sections", sections.len());
    for Section { title, yaml, rows, .. } in &sections {
        let mut yaml = yaml.replace(UPSTREAM, &echo.address.to_string());
        let guest = yaml.split_once("source: guests/dist/").and_then(|(_, rest)| rest.split_once(".wasm"));
        let guest = guest.map(|(guest, _)| guest.to_owned());
        if let Some(guest) = &guest {
            yaml = yaml.replace(&format!("guests/dist/{guest}.wasm"), "filter.wasm");
        }
        let mut setup = Setup::new(&yaml)?.with("users", USERS)?;
        if let Some(guest) = &guest {
            setup = setup.with_guest("filter.wasm", guest)?;
        }
        let gateway = setup.start().with_context(|| title.clone())?;
        check(title, gateway.address, rows)?;
    }
    Ok(())
}

/// nginx, which is ended by its process id.
struct Nginx(std::process::Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs nginx with Lua: just migrations"]
fn nginx_answers_as_the_page_says() -> Result<()> {
    let echo = echo()?;
    let section = sections()?.into_iter().find(|section| section.nginx.is_some()).context("no section of nginx")?;
    let location = section.nginx.context("no block")?.replace(UPSTREAM, &echo.address.to_string());
    let folder = tempfile::tempdir()?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let modules = "/usr/lib/nginx/modules";
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.path().display()));
    let text = format!(
        "daemon off; master_process off; pid {pid}; error_log stderr error;\nload_module {modules}/ndk_http_module.so;\n\
         load_module {modules}/ngx_http_lua_module.so;\nevents {{}}\nhttp {{ access_log off; {} \n\
         lua_package_path \"/usr/share/lua/5.1/?.lua;;\";\nserver {{ listen {address}; {location} }} }}\n",
        paths.join(" "),
        pid = folder.path().join("pid").display(),
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file).stdin(Stdio::null());
    let _nginx = Nginx(command.spawn().context("nginx: run `just migrations`")?);
    wait_until("nginx listens", || std::net::TcpStream::connect(address).is_ok());
    check("nginx itself", address, &section.rows)
}
