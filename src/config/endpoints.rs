//! The `endpoints` of the file.
//!
//! Owns addresses and credentials. Invariant: a credential goes to the endpoint it was written for, and the client's own
//! key is passed on only where it can reach no second host.

use secrecy::SecretString;

use crate::call::Capability;
use crate::dialect::Dialect;
use crate::policy::{ProbeSettings, Supports};
use crate::transport::settings::{Credential, EndpointSettings};

use super::origin::{Origin, Part};
use super::policy::Policy;
use super::report::{Code, Problem};
use super::resolve::Reading;
use super::server::{required, unreadable};
use super::settings::Settings;
use super::tree::{Kind, Node, Span};
use super::{units, url};

/// An endpoint and its places in the file.
pub struct Endpoint {
    /// Resolved.
    pub settings: EndpointSettings,
    /// Where its clocks come from.
    pub part: Part,
    /// Its name in the file.
    pub name_span: Span,
    /// Its URL in the file.
    pub url_span: Span,
    /// Clocks given under it that are read from the route.
    pub idle_clocks: Vec<(&'static str, Span)>,
}

/// Reads `endpoints`.
pub fn read(root: &Node, defaults: &Policy, reading: &mut Reading<'_>) -> Vec<Endpoint> {
    let Some(list) = root.get("endpoints") else {
        if !matches!(root.kind, Kind::Map(_)) {
            return Vec::new();
        }
        let span = Span { line: 1, column: 1, ..Span::default() };
        reading.problems.push(
            Problem::new(Code::Missing, span, "`endpoints` is missing")
                .label("there is nowhere to send calls to")
                .help("add `endpoints:` and below it `  - { name: local, url: http://127.0.0.1:11434/v1 }`"),
        );
        return Vec::new();
    };
    if matches!(list.kind, Kind::Null) || matches!(&list.kind, Kind::Seq(items) if items.is_empty()) {
        reading
            .problems
            .push(Problem::new(Code::Empty, list.span, "`endpoints` is empty").label("needs at least one endpoint"));
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in list.items() {
        let endpoint = one(item, defaults, reading);
        let name = &endpoint.settings.name;
        if let Some(first) = endpoints.iter().find(|other| !name.is_empty() && other.settings.name == *name) {
            reading.problems.push(
                Problem::new(Code::DuplicateName, endpoint.name_span, format!("two endpoints are named `{name}`"))
                    .label(format!("taken by the endpoint on line {}", first.name_span.line)),
            );
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn one(item: &Node, defaults: &Policy, reading: &mut Reading<'_>) -> Endpoint {
    let name = required(item, "name", "an endpoint", reading).unwrap_or_default();
    let address = required(item, "url", "an endpoint", reading).unwrap_or_default();
    let policy = defaults.under(item, Origin::Endpoint);
    policy.breaker_conflicts(reading.problems);
    let span = |key: &str| item.get(key).map_or(item.span, |node| node.span);
    let dialect = item.get("dialect").and_then(Node::text).and_then(|text| text.parse::<Dialect>().ok());
    let idle_clocks = ["timeouts.headers", "timeouts.first_token", "timeouts.total"]
        .into_iter()
        .filter(|key| matches!(policy.part.origin(key), Origin::Endpoint(_)))
        .filter_map(|key| policy.part.span(key).map(|span| (key, span)))
        .collect();
    Endpoint {
        settings: EndpointSettings {
            name,
            url: url::base(&address).unwrap_or_default(),
            credential: credential(item, reading),
            forward_client_key: false,
            dialect: dialect.unwrap_or_default(),
            model: item.get("model").and_then(Node::text).map(str::to_owned),
            window: item.get("context_window").and_then(Node::text).and_then(|text| text.parse().ok()),
            supports: supports(item),
            timeouts: policy.timeouts,
            breaker: policy.breaker,
            concurrency: policy.concurrency,
            connections: policy.connections,
            probe: probe(item, reading),
        },
        name_span: span("name"),
        url_span: span("url"),
        part: policy.part,
        idle_clocks,
    }
}

fn supports(item: &Node) -> Supports {
    let mut supports = Supports::default();
    for capability in Capability::ALL {
        match item.get("supports").and_then(|given| given.get(capability.as_str())).and_then(Node::text) {
            Some("on") => supports.set(capability, true),
            Some("off") => supports.set(capability, false),
            _ => {}
        }
    }
    supports
}

fn probe(item: &Node, reading: &mut Reading<'_>) -> Option<ProbeSettings> {
    let node = item.get("probe").filter(|node| matches!(node.kind, Kind::Map(_)))?;
    let default = ProbeSettings::default();
    let text = |name: &str| node.get(name).and_then(Node::text);
    let duration = |name: &str, default| text(name).and_then(|text| units::duration(text).ok()).unwrap_or(default);
    let count = |name: &str, default| text(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    Some(ProbeSettings {
        every: duration("every", default.every),
        timeout: duration("timeout", default.timeout),
        fail_after: count("fail_after", default.fail_after),
        ok_after: count("ok_after", default.ok_after),
        path: required(node, "path", "a probe", reading).unwrap_or_default(),
    })
}

fn credential(item: &Node, reading: &mut Reading<'_>) -> Credential {
    let key = item.get("key").and_then(Node::text);
    let file = item.get("key_file").and_then(Node::text);
    match (key, file) {
        (Some(_), Some(_)) => {
            let span = item.get("key_file").map_or(item.span, |node| node.span);
            reading.problems.push(
                Problem::new(Code::Conflict, span, "`key` and `key_file` are both given")
                    .label("one credential is enough")
                    .help("keep one of the two"),
            );
            Credential::None
        }
        (Some(key), None) => {
            if let Some(node) = item.get("key").filter(|_| !fits_header(key)) {
                reading.problems.push(
                    Problem::new(Code::BadValue, node.span, "`key` holds a character that cannot be sent in a header")
                        .label("a line break, a blank or a letter outside ASCII"),
                );
            }
            Credential::Key(SecretString::from(key))
        }
        (None, Some(file)) => from_file(item, file, reading),
        (None, None) => Credential::None,
    }
}

fn from_file(item: &Node, file: &str, reading: &mut Reading<'_>) -> Credential {
    let path = reading.path(file);
    let Some(node) = item.get("key_file") else { return Credential::None };
    match reading.file(&path) {
        Ok(text) => {
            let key = text.trim_end_matches(['\n', '\r']);
            if key.is_empty() || !fits_header(key) {
                let why = if key.is_empty() {
                    "the file is empty"
                } else {
                    "holds a character that cannot be sent in a header"
                };
                reading
                    .problems
                    .push(Problem::new(Code::BadFile, node.span, format!("`{file}` does not hold a key")).label(why));
            }
            Credential::File { path, key: SecretString::from(key) }
        }
        Err(error) => {
            reading.problems.push(unreadable(node, file, &error));
            Credential::None
        }
    }
}

fn fits_header(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_graphic())
}

/// Decides, once all endpoints are known, which of them may be sent the client's own key.
pub fn forward_client_keys(settings: &mut Settings) {
    let mut origins = settings.endpoints.iter().map(|endpoint| url::origin(&endpoint.url));
    let first = origins.next();
    let one_origin = origins.all(|origin| Some(origin) == first);
    let open = settings.server.keys.is_empty();
    for endpoint in &mut settings.endpoints {
        endpoint.forward_client_key = one_origin && open && matches!(endpoint.credential, Credential::None);
    }
}
