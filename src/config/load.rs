//! Finds the config, reads it, and hands over settings or every error in it.
//!
//! Owns which file is read and what `--upstream` means. Invariant: what it returns has passed every check; nothing
//! later needs to ask whether the settings make sense.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dialect::Dialect;
use crate::transport::settings::{Credential, EndpointSettings};

use super::files::Source as SourceFile;
use super::origin::{Origin, Origins};
use super::policy::Policy;
use super::report::{Code, Problem, Report};
use super::resolve::{self, Overrides};
use super::routes::catch_all;
use super::settings::Settings;
use super::tree::{Node, Span};
use super::{check, endpoints, server, tree, url};

/// The file that is picked up by itself.
pub const DEFAULT_FILE: &str = "outrigger.yaml";
/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "OUTRIGGER_CONFIG";

/// Where the settings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// `--upstream` with this base URL, as it is used.
    Upstream(String),
}

/// Settings that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run by.
    pub settings: Settings,
    /// Where it comes from.
    pub source: Source,
    /// Warnings; never errors.
    pub warnings: Report,
    /// Where each value comes from.
    pub origins: Origins,
}

impl Loaded {
    /// The file, or `--upstream URL`, for people.
    pub fn source_name(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Upstream(url) => format!("--upstream {url}"),
        }
    }
}

/// Loads `path`, or what `OUTRIGGER_CONFIG` names, or `./outrigger.yaml`; with `upstream` no file at all.
pub fn load(path: Option<&Path>, upstream: Option<&str>, overrides: &Overrides) -> Result<Loaded, Report> {
    let named = std::env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    if let Some(upstream) = upstream {
        let mut loaded = from_upstream(upstream, overrides)?;
        if path.is_some() || named.is_some() {
            let what = if path.is_some() { "the config file" } else { FILE_VARIABLE };
            let problem = Problem::new(
                Code::PassedOver,
                Span::default(),
                format!("{what} is not read: `--upstream` needs no file"),
            );
            loaded.warnings.problems.push(problem);
        }
        return Ok(loaded);
    }
    let given = path.map(Path::to_owned).or(named);
    let file = given.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let (read, text) = SourceFile::read(&file);
    let loaded = match text {
        Ok(source) => from_text(&file, &source, &environment(), overrides),
        Err(error) => Err(no_file(&file, given.is_some(), &error)),
    };
    match loaded {
        Ok(mut loaded) => {
            loaded.origins.files.insert(0, read);
            Ok(loaded)
        }
        Err(mut report) => {
            report.files.insert(0, read);
            Err(report)
        }
    }
}

/// Loads `source` as if it stood in `file`, with `variables` for `${...}`.
pub fn from_text(
    file: &Path,
    source: &str,
    variables: &HashMap<String, String>,
    overrides: &Overrides,
) -> Result<Loaded, Report> {
    let name = file.strip_prefix("./").unwrap_or(file).display().to_string();
    let mut problems = Vec::new();
    let Some(root) = tree::parse(source, variables, &mut problems) else {
        return Err(Report::new(name, source, problems));
    };
    check::walk(&root, &mut problems);
    let dir = file.parent().unwrap_or(Path::new(""));
    let (settings, origins) = resolve::resolve(&root, dir, overrides, &mut problems);
    let mut report = Report::new(name, source, problems);
    report.files.clone_from(&origins.files);
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded { settings, source: Source::File(file.to_owned()), warnings: report, origins })
}

/// One endpoint named `upstream` at `address`, one route that sends it everything, defaults for all else.
pub fn from_upstream(address: &str, overrides: &Overrides) -> Result<Loaded, Report> {
    let mut problems = Vec::new();
    let base = url::base(address).unwrap_or_else(|bad| {
        let message = format!("`--upstream` cannot be `{address}`");
        problems.push(Problem::new(Code::BadUrl, Span::default(), message).label(bad.label).help(bad.help));
        String::new()
    });
    let mut settings = resolve::built_in();
    let mut reading = resolve::Reading { dir: Path::new(""), problems: &mut problems, origins: Origins::default() };
    resolve::flags(&mut settings, overrides, &mut reading.origins);
    let empty = Node { kind: tree::Kind::Null, span: Span::default() };
    server::doors(&empty, &settings, false, &mut reading);
    let mut origins = reading.origins;

    let policy = Policy::default();
    settings.endpoints.push(EndpointSettings {
        name: "upstream".to_owned(),
        url: base.clone(),
        credential: Credential::None,
        forward_client_key: false,
        dialect: Dialect::Auto,
        model: None,
        window: None,
        supports: Default::default(),
        timeouts: policy.timeouts,
        breaker: policy.breaker,
        concurrency: policy.concurrency,
        connections: policy.connections,
        probe: None,
    });
    endpoints::forward_client_keys(&mut settings);
    let mut route = catch_all(policy);
    route.policy.part.set("match.model", Origin::Upstream, Span::default());
    route.policy.part.set("targets", Origin::Upstream, Span::default());
    settings.routes.push(route.settings);
    origins.endpoints.push(super::origin::Part::default());
    origins.routes.push(route.policy.part);

    let report = Report::new("", "", problems);
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded { settings, source: Source::Upstream(base), warnings: report, origins })
}

fn environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn no_file(file: &Path, given: bool, error: &std::io::Error) -> Report {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let name = file.display();
    let message = match (given, missing) {
        (false, true) => format!("there is no `{DEFAULT_FILE}` here"),
        (true, true) => format!("there is no file `{name}`"),
        _ => format!("cannot read `{name}`: {error}"),
    };
    let help = "write one with `outrigger config init`, name one with `-c FILE`, or do without: `outrigger run --upstream http://127.0.0.1:11434/v1`";
    Report::new(name.to_string(), "", vec![Problem::new(Code::NoFile, Span::default(), message).help(help)])
}
