//! Client keys, and whether the data port may stand as open as it does.
//!
//! Owns reading the hash files. Invariant: a key is known by its hash alone, and a port that other machines reach asks
//! for a key unless the file says in so many words that it does not.

use crate::policy::RateLimits;

use super::policy::at;
use super::report::{Code, Problem};
use super::resolve::Reading;
use super::settings::{ClientKey, Settings};
use super::tree::{Kind, Node};
use super::units;

/// The HTTP parser works with a buffer of at least this.
const LEAST_HEAD: usize = 8 << 10;

/// Reads `server.keys`.
pub fn keys(root: &Node, auth_none: bool, reading: &mut Reading<'_>) -> Vec<ClientKey> {
    let Some(list) = at(root, "server.keys") else { return Vec::new() };
    let mut keys: Vec<ClientKey> = Vec::new();
    for item in list.items() {
        let name = required(item, "name", "a client key", reading);
        let file = required(item, "hash_file", "a client key", reading);
        if let (Some(node), Some(name)) = (item.get("name"), &name)
            && keys.iter().any(|key| key.name == *name)
        {
            reading.problems.push(
                Problem::new(Code::DuplicateName, node.span, format!("two client keys are named `{name}`"))
                    .label("already taken"),
            );
        }
        let sha256 = match (item.get("hash_file"), file) {
            (Some(node), Some(file)) => hash(node, &file, reading),
            (Some(node), None) if matches!(node.kind, Kind::Scalar(_)) => {
                let problem = Problem::new(Code::Missing, node.span, "`hash_file` is empty");
                reading.problems.push(problem.label("a client key without a hash would let nobody in"));
                None
            }
            _ => None,
        };
        let priority = item.get("priority").and_then(Node::text).and_then(|text| text.parse().ok());
        keys.push(ClientKey {
            name: name.unwrap_or_default(),
            sha256: sha256.unwrap_or_default(),
            priority: priority.unwrap_or_default(),
            limits: RateLimits {
                requests: amount(item, "limits.requests_per_minute"),
                tokens: amount(item, "limits.tokens_per_minute"),
            },
        });
    }
    if auth_none
        && let Some(node) = at(root, "server.auth")
        && !keys.is_empty()
    {
        reading.problems.push(
            Problem::new(Code::Conflict, node.span, "`auth: none` lets everybody in, and `keys` lists who may come in")
                .label("contradicts `server.keys`")
                .help("remove `auth`, or remove `keys`"),
        );
    }
    keys
}

fn amount(item: &Node, key: &str) -> Option<u64> {
    at(item, key).and_then(Node::text).and_then(|text| units::amount(text).ok())
}

/// Judges sizes that must fit each other, or the HTTP parser.
pub fn sizes(settings: &Settings, reading: &mut Reading<'_>) {
    let span = |key: &str| reading.origins.global.span(key);
    let server = &settings.server;
    let show = units::show_size;
    let mut found = Vec::new();
    if server.max_buffered < server.max_body {
        let places = [span("server.max_buffered"), span("server.max_body")];
        let (all, one) = (show(server.max_buffered), show(server.max_body));
        found.push(
            Problem::new(
                Code::Conflict,
                places.into_iter().flatten().max_by_key(|span| span.start).unwrap_or_default(),
                format!("`max_buffered` ({all}) is less than `max_body` ({one})"),
            )
            .label("the largest body could never be held")
            .help("make `max_buffered` several times `max_body`: it is for all calls together"),
        );
    }
    if server.max_header_bytes < LEAST_HEAD {
        let (given, least) = (show(server.max_header_bytes), show(LEAST_HEAD));
        let place = span("server.max_header_bytes").unwrap_or_default();
        found.push(
            Problem::new(Code::BadValue, place, format!("`max_header_bytes` cannot be `{given}`"))
                .label(format!("wants at least {least}")),
        );
    }
    reading.problems.extend(found);
}

/// The text of a key that must be given; reports it missing.
pub fn required(item: &Node, key: &str, what: &str, reading: &mut Reading<'_>) -> Option<String> {
    let node = item.get(key);
    let text = node.and_then(Node::text).map(str::to_owned);
    if node.is_none() && !item.entries().is_empty() {
        let span = item.entries().first().map_or(item.span, |(key, _)| key.span);
        reading
            .problems
            .push(Problem::new(Code::Missing, span, format!("{what} needs `{key}`")).label(format!("has no `{key}`")));
    }
    text
}

fn hash(node: &Node, file: &str, reading: &mut Reading<'_>) -> Option<[u8; 32]> {
    let path = reading.path(file);
    let text = match reading.file(&path) {
        Ok(text) => text,
        Err(error) => {
            reading.problems.push(unreadable(node, file, &error));
            return None;
        }
    };
    let hex = text.trim();
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    let bytes = decode(hex);
    if bytes.is_none() {
        reading.problems.push(
            Problem::new(Code::BadFile, node.span, format!("`{file}` does not hold a SHA-256 in hex"))
                .label("wants 64 hex digits")
                .help("make one: printf %s \"$KEY\" | sha256sum | cut -d' ' -f1 > FILE"),
        );
    }
    bytes
}

/// A file that the config names and that cannot be read.
pub fn unreadable(node: &Node, file: &str, error: &std::io::Error) -> Problem {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        std::io::ErrorKind::InvalidData => "not text".to_owned(),
        std::io::ErrorKind::IsADirectory => "a directory".to_owned(),
        other => other.to_string(),
    };
    Problem::new(Code::BadFile, node.span, format!("cannot read `{file}`"))
        .label(why)
        .help("a relative path starts at the directory of the config file")
}

fn decode(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    // `from_str_radix` takes a sign; a hash has none.
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then_some(bytes)
}

/// Judges the two addresses as they stand after the command line.
pub fn doors(root: &Node, settings: &Settings, auth_none: bool, reading: &mut Reading<'_>) {
    let span = |key: &str| reading.origins.global.span(key).unwrap_or_default();
    let (listen, admin) = (settings.server.listen, settings.admin.listen);
    let mut found = Vec::new();
    if !listen.ip().is_loopback() && at(root, "server.keys").is_none_or(|keys| keys.items().is_empty()) && !auth_none {
        found.push(
            Problem::new(
                Code::OpenDoor,
                span("server.listen"),
                format!("`{listen}` can be reached from other machines, and no key is asked for"),
            )
            .label("open to everybody who can reach it")
            .help("list `server.keys`, or listen on 127.0.0.1, or write `auth: none` under `server` if that is meant"),
        );
    }
    let same_ip = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if listen.port() == admin.port() && listen.port() != 0 && same_ip {
        let place = [span("server.listen"), span("admin.listen")].into_iter().max_by_key(|span| span.start);
        found.push(
            Problem::new(
                Code::Conflict,
                place.unwrap_or_default(),
                format!("`server.listen` and `admin.listen` are both on port {}", listen.port()),
            )
            .label("taken by the other")
            .help("the data port and the admin port must differ"),
        );
    }
    reading.problems.extend(found);
}
