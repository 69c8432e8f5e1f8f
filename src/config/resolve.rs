//! From a tree that `check.rs` has judged to [`Settings`]: defaults filled in, references checked.
//!
//! Owns the order in which parts are read and what they say of each other. It goes on past every error with a
//! stand-in, so that one run finds them all; the caller throws the settings away if there was one. Invariant: the
//! settings of a run without errors hold no stand-in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::Source;
use super::origin::{Origin, Origins};
use super::policy::{Policy, at};
use super::report::{Code, Problem};
use super::settings::{AdminSettings, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
use super::tree::{Kind, Node, Span};
use super::{endpoints, lints, routes, server, units};

/// What the command line says beside the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of `server.listen`.
    pub listen: Option<SocketAddr>,
    /// Instead of `admin.listen`.
    pub admin: Option<SocketAddr>,
}

/// Default port of the data surface.
pub const DATA_PORT: u16 = 8700;
/// Default port of the admin surface.
pub const ADMIN_PORT: u16 = 8701;

/// Where the reading is, and what it has found.
pub struct Reading<'a> {
    /// Relative paths of the file start here.
    pub dir: &'a Path,
    /// What is wrong.
    pub problems: &'a mut Vec<Problem>,
    /// Where values come from.
    pub origins: Origins,
}

impl Reading<'_> {
    /// A path of the file, relative to the file.
    pub fn path(&self, text: &str) -> PathBuf {
        self.dir.join(text)
    }

    /// Reads a file that the config names.
    pub fn file(&mut self, path: &Path) -> std::io::Result<String> {
        let (source, text) = Source::read(path);
        self.origins.files.push(source);
        text
    }

    /// Reads one global key; what cannot be read keeps the default.
    fn global<T>(&mut self, root: &Node, key: &'static str, default: T, read: impl Fn(&str) -> Option<T>) -> T {
        let Some(node) = at(root, key) else { return default };
        let Some(value) = node.text().and_then(read) else { return default };
        self.origins.global.set(key, Origin::File(node.span.line), node.span);
        value
    }
}

/// The settings without a file: everything built in, no endpoint, no route.
pub fn built_in() -> Settings {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    Settings {
        server: ServerSettings::default(),
        admin: AdminSettings { listen: local(ADMIN_PORT) },
        drain: DrainSettings { delay: Duration::ZERO, timeout: Duration::from_secs(120) },
        log: LogSettings { format: LogFormat::Auto, level: "info".to_owned() },
        state_dir: None,
        endpoints: Vec::new(),
        routes: Vec::new(),
    }
}

/// Resolves a whole file. Worth nothing unless `problems` holds no error afterwards.
pub fn resolve(root: &Node, dir: &Path, overrides: &Overrides, problems: &mut Vec<Problem>) -> (Settings, Origins) {
    let mut reading = Reading { dir, problems, origins: Origins::default() };
    let mut settings = built_in();
    version(root, &mut reading);
    globals(root, &mut settings, &mut reading);
    let auth_none = at(root, "server.auth").and_then(Node::text) == Some("none");
    settings.server.keys = server::keys(root, auth_none, &mut reading);
    flags(&mut settings, overrides, &mut reading.origins);
    server::doors(root, &settings, auth_none, &mut reading);
    server::sizes(&settings, &mut reading);

    let defaults = match root.get("defaults") {
        Some(node) => Policy::default().under(node, Origin::Defaults),
        None => Policy::default(),
    };
    let endpoints = endpoints::read(root, &defaults, &mut reading);
    let routes = routes::read(root, &defaults, &endpoints, &mut reading);
    // Advice on a file that cannot run would only stand in the way of the errors.
    if reading.problems.is_empty() {
        lints::look(&endpoints, &routes, reading.problems);
    }
    for endpoint in endpoints {
        settings.endpoints.push(endpoint.settings);
        reading.origins.endpoints.push(endpoint.part);
    }
    endpoints::forward_client_keys(&mut settings);
    for route in routes {
        settings.routes.push(route.settings);
        reading.origins.routes.push(route.policy.part);
    }
    (settings, reading.origins)
}

/// Lays the command line over the settings.
pub fn flags(settings: &mut Settings, overrides: &Overrides, origins: &mut Origins) {
    if let Some(listen) = overrides.listen {
        settings.server.listen = listen;
        origins.global.set("server.listen", Origin::Flag, Span::default());
    }
    if let Some(listen) = overrides.admin {
        settings.admin.listen = listen;
        origins.global.set("admin.listen", Origin::Flag, Span::default());
    }
}

fn version(root: &Node, reading: &mut Reading<'_>) {
    if matches!(root.kind, Kind::Map(_)) && root.get("version").is_none() {
        let span = Span { line: 1, column: 1, ..Span::default() };
        reading.problems.push(
            Problem::new(Code::Missing, span, "`version` is missing")
                .label("the file does not say which format it is in")
                .help("begin the file with `version: 1`"),
        );
    }
}

fn globals(root: &Node, settings: &mut Settings, reading: &mut Reading<'_>) {
    let address = |text: &str| text.parse().ok();
    let server = &mut settings.server;
    server.listen = reading.global(root, "server.listen", server.listen, address);
    server.max_body = reading.global(root, "server.max_body", server.max_body, |text| units::size(text).ok());
    server.max_buffered =
        reading.global(root, "server.max_buffered", server.max_buffered, |text| units::size(text).ok());
    server.max_header_bytes =
        reading.global(root, "server.max_header_bytes", server.max_header_bytes, |text| units::size(text).ok());
    let clock = |text: &str| units::duration(text).ok();
    server.header_timeout = reading.global(root, "server.header_timeout", server.header_timeout, clock);
    server.body_timeout = reading.global(root, "server.body_timeout", server.body_timeout, clock);
    server.write_timeout = reading.global(root, "server.write_timeout", server.write_timeout, clock);
    server.max_connections =
        reading.global(root, "server.max_connections", server.max_connections, |text| text.parse().ok());
    let kept = &mut server.idempotency;
    kept.ttl = reading.global(root, "server.idempotency.ttl", kept.ttl, |text| units::duration(text).ok());
    kept.max_memory =
        reading.global(root, "server.idempotency.max_memory", kept.max_memory, |text| units::size(text).ok());
    settings.admin.listen = reading.global(root, "admin.listen", settings.admin.listen, address);
    let drain = &mut settings.drain;
    drain.delay = reading.global(root, "drain.delay", drain.delay, |text| units::duration(text).ok());
    drain.timeout = reading.global(root, "drain.timeout", drain.timeout, |text| units::duration(text).ok());
    settings.log.format = reading.global(root, "log.format", LogFormat::Auto, |text| match text {
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        "auto" => Some(LogFormat::Auto),
        _ => None,
    });
    settings.log.level = reading.global(root, "log.level", settings.log.level.clone(), |text| Some(text.to_owned()));
    let dir = reading.dir.to_owned();
    settings.state_dir = reading.global(root, "state.dir", None, |text| Some(Some(dir.join(text))));
}
