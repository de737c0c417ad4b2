//! A component before it is compiled: copied, described and checked.
//!
//! `witgate check`, `witgate precompile` and the loader use the same checks. They run before the
//! compiler, so a wrong file is refused in milliseconds.
//!
//! This module does not know: compilers, caches.

use super::content_hash::ContentHash;
use super::private_copy::PrivateCopy;
use super::source::{Revision, Source};
use witgate_config::{CompileLimits, Denied, DeniedPackage, Filter};
use witgate_runtime::component::{ComponentInfo, Package, SizeLimits, describe};
use witgate_runtime::http_component;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};
use witgate_runtime::settings::{FilterSettings, check_imports};

/// A component that passed every check that needs no compiler.
pub struct Candidate {
    /// The bytes that were checked, which are also the bytes to compile.
    pub copy: PrivateCopy,
    /// The description of the component.
    pub info: ComponentInfo,
}

impl Candidate {
    /// Copies a revision of a source, describes it, and checks it against requirements and limits.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn read(
        source: &dyn Source,
        revision: &Revision,
        requirements: Option<&Requirements<'_>>,
        limits: &CompileLimits,
    ) -> Result<Self, LoadError> {
        let copy = source.copy(revision)?;
        let info = describe(copy.bytes())?;
        if let Some(requirements) = requirements {
            requirements.check(&info)?;
        }
        info.check_size(&SizeLimits { functions: limits.functions, function_bytes: limits.function_bytes })?;
        Ok(Self { copy, info })
    }

    /// The hash of the bytes that were checked.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(self.copy.bytes())
    }
}

/// The part of the configuration that a component must satisfy.
pub struct Requirements<'a> {
    /// The filter of the configuration, with its pins.
    pub filter: &'a Filter,
    /// Its settings, with the granted imports. None for the component of an upstream.
    pub settings: Option<&'a FilterSettings>,
    /// Components and packages that no filter may use.
    pub denied: &'a Denied,
}

/// Refuses a component that is denied, or that contains a denied package.
///
/// # Errors
/// `Denied`.
pub fn check_denied(denied: &Denied, info: &ComponentInfo) -> Result<(), LoadError> {
    if denied.digests.iter().any(|digest| hex::encode(digest) == info.digest) {
        let message = format!("the component with the sha256 {} is in `deny`", info.digest);
        return Err(LoadError::new(LoadErrorReason::Denied, message));
    }
    for DeniedPackage { name, version } in &denied.packages {
        let is_denied =
            |found: &&Package| found.name == *name && version.as_ref().is_none_or(|one| *one == found.version);
        if let Some(found) = info.packages.iter().find(is_denied) {
            let message =
                format!("it contains the package {} {}, which is in `deny_packages`", found.name, found.version);
            return Err(LoadError::new(LoadErrorReason::Denied, message));
        }
    }
    Ok(())
}

impl Requirements<'_> {
    /// Checks the list of denied components, the pinned digest and version, the imports, and the
    /// configuration.
    ///
    /// # Errors
    /// `Denied`, `Pin`, `NotGranted`, `WrongWorld` or `Config`.
    pub fn check(&self, info: &ComponentInfo) -> Result<(), LoadError> {
        check_denied(self.denied, info)?;
        self.check_pins(info)?;
        let Some(settings) = self.settings else { return http_component::check_imports(info) };
        check_imports(info, settings)?;
        self.check_config(info)
    }

    /// Checks the configuration against the schemas of the manifest.
    fn check_config(&self, info: &ComponentInfo) -> Result<(), LoadError> {
        let Some(manifest) = &info.manifest else { return Ok(()) };
        let own = manifest.config_problems(&self.filter.config).into_iter().map(|problem| format!("config.{problem}"));
        let of_routes = self.filter.route_configs.iter().flat_map(|(route, config)| {
            let problems = manifest.config_problems(config).into_iter();
            problems.map(move |problem| format!("config.{problem} (route {route})"))
        });
        // A route inherits what the filter's own configuration sets.
        let mut problems: Vec<String> = own.collect();
        for problem in of_routes {
            if !problems.iter().any(|known| problem.starts_with(known.as_str())) {
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let message = format!("the configuration does not fit the filter: {}", problems.join("; "));
        Err(LoadError::new(LoadErrorReason::Config, message))
    }

    fn check_pins(&self, info: &ComponentInfo) -> Result<(), LoadError> {
        if let Some(pin) = self.filter.sha256.map(hex::encode)
            && pin != info.digest
        {
            return Err(LoadError::new(
                LoadErrorReason::Pin,
                format!("the file's sha256 is {}, but the configuration pins {pin}", info.digest),
            ));
        }
        let version = info.manifest.as_ref().map(|manifest| manifest.version.as_str());
        if let Some(pin) = &self.filter.version
            && version != Some(pin)
        {
            let version = version.unwrap_or("not given (no manifest)");
            return Err(LoadError::new(
                LoadErrorReason::Pin,
                format!("the component's version is {version}, but the configuration pins {pin}"),
            ));
        }
        Ok(())
    }
}
