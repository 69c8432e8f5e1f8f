//! Whole files in, settings or exact renderings out. Expected texts are beside the files that cause them;
//! `BLESS=1 cargo test` writes what is printed now.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::*;
use crate::call::{Capability, Priority};
use crate::policy::settings::{
    BreakerSettings, Concurrency, IdempotencySettings, MAX_SENDS, Mode, QUEUE_WAIT, RetrySettings, StreamMode, Timeouts,
};
use crate::policy::{HedgeSettings, ProbeSettings};
use crate::transport::settings::{Connections, Credential};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn variables() -> HashMap<String, String> {
    [("OPENAI_API_KEY", "sk-never-shown-0123456789"), ("SECRET_URL", "ftp://me:hunter2@host"), ("EMPTY", "")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn text(source: &str) -> Result<Loaded, Report> {
    from_text(Path::new("outrigger.yaml"), source, &variables(), &Overrides::default())
}

fn current(path: &Path, made: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, made).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == made,
        "{} is not current; run `BLESS=1 cargo test`.\n--- made\n{made}\n--- kept\n{kept}",
        path.display()
    );
}

#[test]
fn bad_files_are_told_exactly() {
    let folder = root().join("tests/fixtures/config/bad");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    assert!(files.len() >= 15);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let report = match text(&source) {
            Ok(loaded) => loaded.warnings,
            Err(report) => report,
        };
        assert!(!report.problems.is_empty(), "{} is not bad", file.display());
        let told = report.render(false);
        assert!(!told.contains("hunter2") && !told.contains("never-shown"), "{} tells a secret", file.display());
        current(&file.with_extension("txt"), &told);
    }
}

#[test]
fn the_written_files_are_current() {
    current(&root().join("config/outrigger.yaml"), &starter::text());
    current(&root().join("docs/reference/config.md"), &reference::page());
    current(&root().join("docs/reference/cli.md"), &crate::cli::reference::page());
}

#[test]
fn the_starter_changes_no_default() {
    let loaded = text(&starter::text()).unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(loaded.warnings.problems, []);
    let route = &loaded.settings.routes[0];
    assert_eq!(route.timeouts, Timeouts::default());
    assert_eq!(route.retry, RetrySettings::default());
    assert_eq!((route.max_sends, route.queue_wait), (MAX_SENDS, QUEUE_WAIT));
    assert_eq!(loaded.settings.endpoints[0].concurrency, Concurrency::default());
    assert_eq!(loaded.settings.endpoints[0].timeouts, Timeouts::default());
    assert_eq!(loaded.settings.endpoints[0].breaker, BreakerSettings::default());
    assert_eq!(route.hedge, HedgeSettings::default());
    assert_eq!(loaded.settings.endpoints[0].connections, Connections::default());
    assert_eq!(loaded.settings.endpoints[0].probe, None);
    let mut bare = resolve::built_in();
    bare.endpoints = loaded.settings.endpoints.clone();
    bare.routes = loaded.settings.routes.clone();
    assert_eq!(show::yaml(&loaded.settings), show::yaml(&bare));
    assert_eq!(loaded.settings.state_dir, None);
}

#[test]
fn the_example_files_load_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    for name in ["search", "support"] {
        fs::write(folder.path().join("keys").join(name), format!("sha256:{}\n", "0a".repeat(32))).unwrap();
    }
    fs::write(folder.path().join("anthropic.key"), "sk-ant\n").unwrap();
    for name in ["minimal.yaml", "homelab.yaml", "platform.yaml", "outrigger.yaml"] {
        let source = fs::read_to_string(root().join("config").join(name)).unwrap();
        let loaded = from_text(&folder.path().join(name), &source, &variables(), &Overrides::default());
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
        assert_eq!(loaded.warnings.problems, [], "{name}");
        let again = show::yaml(&loaded.settings);
        assert!(!again.contains("sk-"), "{name} shows a secret");
    }
}

#[test]
fn values_merge_from_defaults_to_the_route_and_remember_where_they_were() {
    let loaded = text(
        "version: 1\nendpoints:\n  - name: a\n    url: http://127.0.0.1:1\n    key: ${OPENAI_API_KEY}\n    timeouts:\n      connect: 1s\n\
         defaults:\n  timeouts: { total: 90s, idle: 7s }\n  max_sends: 9\nroutes:\n  - targets: [a]\n    timeouts: { total: 60s }\n",
    )
    .unwrap();
    let (route, endpoint) = (&loaded.settings.routes[0], &loaded.settings.endpoints[0]);
    assert_eq!(route.name, "route-1");
    assert_eq!(route.timeouts.total.as_secs(), 60);
    assert_eq!(route.max_sends, 9);
    assert_eq!((endpoint.timeouts.connect.as_secs(), endpoint.timeouts.idle.as_secs()), (1, 7));
    assert_eq!(endpoint.url, "http://127.0.0.1:1/v1");
    let Credential::Key(key) = &endpoint.credential else { panic!("no key") };
    assert_eq!(key.expose_secret(), "sk-never-shown-0123456789");
    assert_eq!(loaded.origins.routes[0].origin("timeouts.total"), Origin::Route(13));
    assert_eq!(loaded.origins.routes[0].origin("max_sends"), Origin::Defaults(10));
    assert_eq!(loaded.origins.routes[0].origin("retry.attempts"), Origin::BuiltIn);
    assert_eq!(loaded.origins.endpoints[0].origin("timeouts.connect"), Origin::Endpoint(7));
}

#[test]
fn a_breaker_is_off_or_a_map() {
    let with = |defaults: &str, endpoint: &str| {
        let source = format!(
            "version: 1\nendpoints: [{{ name: a, url: \"http://127.0.0.1:1\"{endpoint} }}]\ndefaults: {{ breaker: {defaults} }}\n"
        );
        text(&source).map(|loaded| loaded.settings.endpoints[0].breaker)
    };
    let own = BreakerSettings::default();
    assert_eq!(with("off", "").unwrap(), BreakerSettings { on: false, ..own });
    assert_eq!(with("{ probes: 2 }", ", breaker: off").unwrap(), BreakerSettings { on: false, probes: 2, ..own });
    assert_eq!(with("off", ", breaker: { consecutive: 3 }").unwrap(), BreakerSettings { consecutive: 3, ..own });
    for (wrong, code) in [("on", Code::WrongType), ("{ probes: 0 }", Code::Zero), ("{ open_for: 30s }", Code::Conflict)]
    {
        assert_eq!(with(wrong, "").unwrap_err().problems[0].code, code, "{wrong}");
    }
}

#[test]
fn hedging_is_off_or_a_map() {
    let with = |defaults: &str, route: &str| {
        let source = format!(
            "version: 1\nendpoints: [{{ name: a, url: \"http://127.0.0.1:1\" }}, {{ name: b, url: \"http://127.0.0.1:2\" }}]\n\
             defaults: {{ max_sends: 4{defaults} }}\nroutes: [{{ targets: [{{ balance: [a, b] }}]{route} }}]\n"
        );
        text(&source).map(|loaded| loaded.settings.routes[0].hedge)
    };
    let own = HedgeSettings::default();
    assert!(!own.on);
    assert_eq!(with("", "").unwrap(), own);
    assert_eq!(with("", ", hedge: {}").unwrap(), HedgeSettings { on: true, ..own });
    let early = HedgeSettings { on: true, after: 0.9, budget: 0.12 };
    assert_eq!(with(", hedge: { after: p90, budget: 12% }", "").unwrap(), early);
    assert_eq!(
        with(", hedge: { after: p90, budget: 12% }", ", hedge: off").unwrap(),
        HedgeSettings { on: false, ..early }
    );
    for (wrong, code) in
        [("on", Code::WrongType), ("{ after: p1 }", Code::BadValue), ("{ budget: 4% }", Code::Conflict)]
    {
        assert_eq!(with("", &format!(", hedge: {wrong}")).unwrap_err().problems[0].code, code, "{wrong}");
    }
}

#[test]
fn an_endpoint_s_abilities_are_read() {
    let source = "version: 1\nendpoints: [{ name: a, url: \"http://127.0.0.1:1\", context_window: 32768, \
                  supports: { tools: off, vision: on } }]\n";
    let loaded = text(source).unwrap();
    let endpoint = &loaded.settings.endpoints[0];
    assert_eq!(endpoint.window, Some(32768));
    let said = Capability::ALL.map(|capability| endpoint.supports.get(capability));
    assert_eq!(said, [Some(false), None, Some(true), None]);
    assert!(
        show::yaml(&loaded.settings).contains("    context_window: 32768\n    supports: { tools: off, vision: on }\n")
    );
}

#[test]
fn the_client_s_key_reaches_one_origin_only() {
    let with = |urls: &[&str], extra: &str| {
        let mut source = "version: 1\nendpoints:\n".to_owned();
        for (index, url) in urls.iter().enumerate() {
            source.push_str(&format!("  - {{ name: e{index}, url: \"{url}\" }}\n"));
        }
        source.push_str(extra);
        source.push_str("routes:\n  - targets: [e0]\n");
        text(&source).unwrap().settings.endpoints.iter().map(|e| e.forward_client_key).collect::<Vec<_>>()
    };
    assert_eq!(with(&["https://a/v1", "https://A:443/v2"], ""), [true, true]);
    assert_eq!(with(&["https://a/v1", "https://b/v1"], ""), [false, false]);
    assert_eq!(with(&["https://a/v1", "http://a/v1"], ""), [false, false]);
    let upstream = from_upstream("http://127.0.0.1:11434/", &Overrides::default()).unwrap();
    assert!(upstream.settings.endpoints[0].forward_client_key);
    assert_eq!(upstream.settings.endpoints[0].url, "http://127.0.0.1:11434/v1");
    assert_eq!(
        (upstream.settings.endpoints[0].name.as_str(), upstream.settings.routes[0].name.as_str()),
        ("upstream", "default")
    );
}

#[test]
fn an_open_door_from_the_command_line_is_refused_too() {
    let open = Overrides { listen: Some(([0, 0, 0, 0], 8700).into()), admin: None };
    let report = from_upstream("http://127.0.0.1:1", &open).unwrap_err();
    assert_eq!(report.problems[0].code, Code::OpenDoor);
}

#[test]
fn keys_of_other_versions_are_refused_by_name() {
    for key in keys::KEYS.iter().filter(|key| !key.row.built) {
        let place = key.path.split(['.', '[']).next().unwrap();
        let name = key.path.rsplit(['.']).next().unwrap();
        let (endpoint, route, defaults, top) = match place {
            "endpoints" => (format!(", {name}: 1"), String::new(), String::new(), String::new()),
            "routes" => (String::new(), format!(", {name}: 1"), String::new(), String::new()),
            "defaults" => (String::new(), String::new(), format!("defaults: {{ {name}: 1 }}\n"), String::new()),
            _ if key.path.contains("keys[]") => (
                String::new(),
                String::new(),
                String::new(),
                format!("server: {{ keys: [{{ name: a, hash_file: b, {name}: 1 }}] }}\n"),
            ),
            _ if key.path.contains('.') => {
                (String::new(), String::new(), String::new(), format!("{place}: {{ {name}: 1 }}\n"))
            }
            _ => (String::new(), String::new(), String::new(), format!("{name}: 1\n")),
        };
        let source = format!(
            "version: 1\n{top}endpoints: [{{ name: a, url: \"http://127.0.0.1:1\"{endpoint} }}]\n{defaults}routes: [{{ targets: [a]{route} }}]\n"
        );
        let report = text(&source).unwrap_err();
        let codes: Vec<Code> = report.problems.iter().map(|problem| problem.code).collect();
        assert!(
            codes.contains(&Code::NotAvailable) && !codes.contains(&Code::UnknownKey),
            "{}\n{}",
            key.path,
            report.render(false)
        );
    }
}

#[test]
fn variables_are_text_whatever_they_hold() {
    for value in ["007", "1e5", "true", "0x1F", "a b#c: d", "plain"] {
        let variables = [("K".to_owned(), value.to_owned())].into_iter().collect();
        let source =
            "version: 1\nendpoints:\n  - name: a\n    url: http://127.0.0.1:1\n    model: ${K}\n    key: ${NONE:-}\n";
        let loaded = from_text(Path::new("x.yaml"), source, &variables, &Overrides::default());
        let loaded = loaded.unwrap_or_else(|report| panic!("{value}: {}", report.render(false)));
        assert_eq!(loaded.settings.endpoints[0].model.as_deref(), Some(value));
        assert!(matches!(loaded.settings.endpoints[0].credential, Credential::None));
    }
}

#[test]
fn a_literal_may_hold_the_mark_of_a_variable() {
    let source = "version: 1\nendpoints:\n  - name: a\n    url: http://127.0.0.1:1\n    model: $${K}\n";
    let loaded = text(source).unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(loaded.settings.endpoints[0].model.as_deref(), Some("${K}"));
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader_or_the_report(lines in proptest::collection::vec("[ a-c:{}\\[\\]\"'|>$&*#é-]{0,12}|  - name: a|endpoints:|version: 1|\tkey: x", 0..8)) {
        let source = lines.join("\n");
        if let Err(report) = text(&source) {
            proptest::prop_assert!(report.errors() > 0);
            let _ = (report.render(true), report.to_json());
        }
    }
}

#[test]
fn a_secret_under_a_misspelt_key_is_not_shown() {
    let source = "version: 1\nendpoints:\n  - { name: a, kye: hunter2, dialect: olama, url: \"http://127.0.0.1:1\" }\n";
    let told = text(source).unwrap_err().render(false);
    assert!(!told.contains("hunter2") && told.contains("did you mean `key`"), "{told}");
    assert!(told.contains("olama"), "{told}");
}

#[test]
fn streams_and_their_rescue_are_read_where_they_belong() {
    let source = "version: 1\nserver: { max_held: 1MiB }\nendpoints: [{ name: a, url: \"http://127.0.0.1:1\" }]\n\
                  defaults: { stream: hold }\nroutes:\n  - { targets: [a] }\n\
                  \x20 - { targets: [a], match: { model: m }, stream: live, rescue: continue }\n\
                  \x20 - { targets: [a], match: { model: n }, stream: auto, rescue: off }\n";
    let settings = text(source).unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
    assert_eq!(settings.server.max_held, 1 << 20);
    let streams: Vec<_> = settings.routes.iter().map(|route| (route.streams.mode, route.streams.rescue)).collect();
    assert_eq!(streams, [(StreamMode::Hold, false), (StreamMode::Live, true), (StreamMode::Auto, false)]);
    let shown = show::yaml(&settings);
    for line in ["max_held: 1MiB", "stream: hold", "stream: live", "rescue: continue", "rescue: \"off\""] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let again = text(&shown).unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
    assert_eq!(show::yaml(&again), shown);
}

#[test]
fn limits_queues_and_priorities_are_read_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hash"), "0a".repeat(32)).unwrap();
    let source = "version: 1\nserver:\n  keys:\n    - { name: a, hash_file: hash, priority: critical }\n    - { name: b, hash_file: hash }\n\
                  endpoints:\n  - { name: x, url: \"http://127.0.0.1:1\", concurrency: { max: 4 } }\n  - { name: y, url: \"http://127.0.0.1:2\" }\n\
                  defaults:\n  concurrency: { mode: fixed, max: 9 }\n  queue: { wait: 0s }\n\
                  routes:\n  - { targets: [x], queue: { wait: 2s } }\n  - { targets: [y], match: { model: m } }\n";
    let loaded = from_text(&folder.path().join("x.yaml"), source, &variables(), &Overrides::default());
    let settings = loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
    let limits: Vec<_> = settings.endpoints.iter().map(|it| (it.concurrency.mode, it.concurrency.max)).collect();
    assert_eq!(limits, [(Mode::Fixed, 4), (Mode::Fixed, 9)]);
    assert_eq!(settings.routes.iter().map(|route| route.queue_wait.as_secs()).collect::<Vec<_>>(), [2, 0]);
    let priorities: Vec<_> = settings.server.keys.iter().map(|key| key.priority).collect();
    assert_eq!(priorities, [Priority::Critical, Priority::Default]);
    let shown = show::yaml(&settings);
    assert!(shown.contains("priority: critical") && shown.contains("max: 4") && shown.contains("wait: 2s"), "{shown}");
}

#[test]
fn limits_of_keys_and_of_the_door_are_read_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hash"), "0a".repeat(32)).unwrap();
    let source = "version: 1\nserver:\n  max_body: 1MiB\n  max_buffered: 8MiB\n  max_header_bytes: 16KiB\n  header_timeout: 5s\n  body_timeout: 6s\n  write_timeout: 7s\n\
                  \x20 keys:\n    - { name: a, hash_file: hash, limits: { requests_per_minute: 600, tokens_per_minute: 1.5M } }\n\
                  \x20   - { name: b, hash_file: hash, limits: { tokens_per_minute: 500k } }\n    - { name: c, hash_file: hash }\n\
                  endpoints: [{ name: x, url: \"http://127.0.0.1:1\" }]\n";
    let read = |source: &str| {
        let loaded = from_text(&folder.path().join("x.yaml"), source, &variables(), &Overrides::default());
        loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).settings
    };
    let server = read(source).server;
    let limits: Vec<_> = server.keys.iter().map(|key| (key.limits.requests, key.limits.tokens)).collect();
    assert_eq!(limits, [(Some(600), Some(1_500_000)), (None, Some(500_000)), (None, None)]);
    assert_eq!((server.max_body, server.max_buffered, server.max_header_bytes), (1 << 20, 8 << 20, 16 << 10));
    let clocks = [server.header_timeout, server.body_timeout, server.write_timeout];
    assert_eq!(clocks.map(|clock| clock.as_secs()), [5, 6, 7]);
    let shown = show::yaml(&read(source));
    for line in [
        "max_buffered: 8MiB",
        "max_header_bytes: 16KiB",
        "header_timeout: 5s",
        "body_timeout: 6s",
        "write_timeout: 7s",
        "requests_per_minute: 600",
        "tokens_per_minute: 1500k",
        "tokens_per_minute: 500k",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let again = show::yaml(&read(&shown.replace("\"***\"", "hash")));
    assert_eq!(again, shown, "what is shown could be a config");
}

#[test]
fn probes_and_connections_are_read_where_they_belong() {
    let source = "version: 1\nendpoints:\n  - name: x\n    url: http://127.0.0.1:1\n    probe: { path: /health, every: 7s, timeout: 500ms, fail_after: 3, ok_after: 2 }\n\
                  \x20   connections: { max_age: 0s }\n  - { name: y, url: \"http://127.0.0.1:2\", probe: { path: \"/v1/models?limit=1\" } }\n\
                  \x20 - { name: z, url: \"http://127.0.0.1:3\" }\n\
                  defaults:\n  connections: { max_age: 2m, dns_refresh: 5s }\nroutes:\n  - targets: [x, y, z]\n";
    let settings = text(source).unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
    let (ms, of) = (std::time::Duration::from_millis, |number: usize| &settings.endpoints[number]);
    let x = ProbeSettings { path: "/health".into(), every: ms(7000), timeout: ms(500), fail_after: 3, ok_after: 2 };
    assert_eq!(of(0).probe, Some(x));
    assert_eq!(of(1).probe, Some(ProbeSettings { path: "/v1/models?limit=1".into(), ..ProbeSettings::default() }));
    assert_eq!(of(2).probe, None);
    let ages: Vec<_> = settings.endpoints.iter().map(|it| it.connections.max_age.as_secs()).collect();
    assert_eq!(ages, [0, 120, 120]);
    assert!(settings.endpoints.iter().all(|it| it.connections.dns_refresh == ms(5000)));
    let again = text(&show::yaml(&settings)).unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
    let probes = |settings: &Settings| -> Vec<_> {
        settings.endpoints.iter().map(|it| (it.probe.clone(), it.connections)).collect()
    };
    assert_eq!(probes(&again), probes(&settings), "what is shown reads back");
}

#[test]
fn what_is_kept_for_keys_is_read() {
    let with = |server: &str| {
        let source = format!("version: 1\n{server}endpoints: [{{ name: a, url: \"http://127.0.0.1:1\" }}]\n");
        let settings = text(&source).unwrap_or_else(|report| panic!("{}", report.render(false))).settings;
        (settings.server.idempotency, show::yaml(&settings))
    };
    assert_eq!(with("").0, IdempotencySettings::default());
    let (kept, shown) = with("server: { idempotency: { ttl: 0s, max_memory: 2MiB } }\n");
    assert_eq!((kept.ttl.as_secs(), kept.max_memory), (0, 2 << 20));
    assert!(shown.contains("ttl: 0s") && shown.contains("max_memory: 2MiB"), "{shown}");
}
