//! `GET /v1/models`, over one endpoint and over several.

use outrigger::config::Settings;
use serde_json::json;

use crate::support::{base, gateway, get, http, mock, settings};

fn ids(list: &serde_json::Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn one_endpoint_speaks_for_itself() {
    let upstream = mock("models: [a, org/b:free]\ncontext_window: 4096").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    for path in ["/models", "/models/a", "/models/org/b:free", "/models/unknown"] {
        let direct = get(&http, &format!("{}{path}", upstream.base_url())).await;
        let through = get(&http, &format!("{}{path}", base(&gateway))).await;
        assert_eq!((through.status, &through.body), (direct.status, &direct.body), "{path}");
    }
}

/// Two that live and share a model, one that hangs up, and a port where nothing listens; a route by full name.
async fn several() -> (Settings, Vec<outrigger::mock::Running>) {
    let mocks = vec![
        mock("models: [a, shared]").await,
        mock("models: [shared, org/b:free, named]").await,
        mock("rules: [{ do: { reset_on_accept: true } }]").await,
        mock("{}").await,
    ];
    mocks[3].down().await;
    let urls: Vec<String> = mocks.iter().map(outrigger::mock::Running::base_url).collect();
    let mut settings = settings(&urls);
    let mut named = settings.routes[0].clone();
    (named.name, named.model) = ("named".into(), "named".into());
    settings.routes.insert(0, named);
    (settings, mocks)
}

#[tokio::test]
async fn several_endpoints_are_one_list() {
    let (settings, _mocks) = several().await;
    let gateway = gateway(settings).await;
    let answer = get(&http(), &format!("{}/models", base(&gateway))).await;
    let list = answer.json();
    assert_eq!((answer.status, &list["object"]), (200, &json!("list")), "{list}");
    assert_eq!(ids(&list), ["named", "a", "shared", "org/b:free"], "each once, dead endpoints left out");
    assert!(list["data"].as_array().unwrap().iter().all(|model| model["object"] == "model"), "{list}");
}

#[tokio::test]
async fn a_model_is_found_or_not() {
    let (settings, _mocks) = several().await;
    let gateway = gateway(settings).await;
    let http = http();
    for (path, id) in [
        ("a", "a"),
        ("org/b:free", "org/b:free"),
        // Official clients pack what is special in an id.
        ("org%2Fb%3Afree", "org/b:free"),
        ("named", "named"),
    ] {
        let answer = get(&http, &format!("{}/models/{path}", base(&gateway))).await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some(id)), "{path}: {}", answer.text());
    }
    let answer = get(&http, &format!("{}/models/gpt-9", base(&gateway))).await;
    assert_eq!((answer.status, answer.error_code().as_deref()), (404, Some("bad_request")));
    assert!(answer.text().contains("gpt-9"), "{}", answer.text());
}
