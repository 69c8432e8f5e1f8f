//! What servers say of themselves: llama.cpp's how many slots it has and how much each holds, from `GET /props`, else from
//! the list at `GET /slots`; vLLM how much its model holds, from `GET /v1/models`.
//!
//! Silence is an answer too: a server that does not tell, or tells something else, is one nothing is known of. Invariant:
//! nothing here can fail a call.

use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;

use super::asker::Asker;
use super::connect::Dialler;
use super::settings::EndpointSettings;
use crate::dialect::Dialect;

/// A server that takes longer has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// One endpoint that may be asked.
pub struct Props {
    asker: Asker,
    /// Asked where the first does not tell.
    other: Option<Asker>,
    kind: Kind,
}

enum Kind {
    LlamaCpp,
    /// With the model that is asked for there, if it is always the same.
    Vllm(Option<String>),
}

/// What it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Sends it works on at once.
    pub slots: Option<usize>,
    /// Tokens each of them can hold.
    pub window: Option<u64>,
}

#[derive(Deserialize)]
struct Said {
    total_slots: usize,
    default_generation_settings: Option<Generation>,
}

#[derive(Deserialize)]
struct Slot {
    n_ctx: Option<u64>,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    max_model_len: Option<u64>,
}

#[derive(Deserialize)]
struct Generation {
    n_ctx: Option<u64>,
}

impl Props {
    /// `None` where the URL leads to no such path.
    pub fn new(settings: &EndpointSettings, dialler: &Dialler) -> Option<Self> {
        let (kind, base, path) = match settings.dialect {
            Dialect::Vllm => (Kind::Vllm(settings.model.clone()), settings.url.as_str(), "models"),
            _ => (Kind::LlamaCpp, settings.url.strip_suffix("/v1").unwrap_or(&settings.url), "props"),
        };
        let base: Uri = base.parse().ok()?;
        let at = |path: &str| format!("{}/{path}", base.path().trim_end_matches('/'));
        let other = matches!(kind, Kind::LlamaCpp).then(|| Asker::new(settings, &at("slots"), dialler)).flatten();
        Some(Self { asker: Asker::new(settings, &at(path), dialler)?, other, kind })
    }

    /// Its slots and their window, if it tells.
    pub async fn told(&self) -> Option<Told> {
        match &self.kind {
            Kind::Vllm(model) => vllm(&answer(&self.asker).await?, model.as_deref()),
            Kind::LlamaCpp => {
                let told = answer(&self.asker).await.and_then(|body| llama_cpp(&body));
                if told.is_some() {
                    return told;
                }
                listed_slots(&answer(self.other.as_ref()?).await?)
            }
        }
    }
}

async fn answer(asker: &Asker) -> Option<Bytes> {
    let (status, body) = tokio::time::timeout(PATIENCE, asker.ask()).await.ok()?.ok()?;
    status.is_success().then_some(body)
}

/// One entry for each slot; a server that tells of none tells nothing.
fn listed_slots(body: &[u8]) -> Option<Told> {
    let slots = serde_json::from_slice::<Vec<Slot>>(body).ok().filter(|slots| !slots.is_empty())?;
    let window = slots.iter().filter_map(|slot| slot.n_ctx).filter(|window| *window > 0).min();
    Some(Told { slots: Some(slots.len()), window })
}

fn llama_cpp(body: &[u8]) -> Option<Told> {
    let said = serde_json::from_slice::<Said>(body).ok()?;
    let window = said.default_generation_settings.and_then(|each| each.n_ctx).filter(|window| *window > 0);
    Some(Told { slots: Some(said.total_slots), window })
}

/// The window of the one model that is asked for; without one, of all that are listed, if it is the same.
fn vllm(body: &[u8], model: Option<&str>) -> Option<Told> {
    let listed = serde_json::from_slice::<Listed>(body).ok()?.data;
    let asked = listed.iter().filter(|one| model.is_none_or(|model| one.id == model));
    let mut windows = asked.filter_map(|one| one.max_model_len);
    let first = windows.next()?;
    windows.all(|window| window == first).then_some(Told { slots: None, window: Some(first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_tell() {
        let slots = |slots, window| Some(Told { slots: Some(slots), window });
        let generation = br#"{"default_generation_settings":{"id":0,"n_ctx":8192,"params":{}},"total_slots":4}"#;
        assert_eq!(llama_cpp(generation), slots(4, Some(8192)));
        assert_eq!(llama_cpp(br#"{"total_slots":1}"#), slots(1, None));
        assert_eq!(llama_cpp(br#"{"default_generation_settings":{"n_ctx":0},"total_slots":1}"#), slots(1, None));
        assert_eq!(llama_cpp(b"{}"), None);
        assert_eq!(listed_slots(br#"[{"id":0,"n_ctx":4096},{"id":1,"n_ctx":4096}]"#), slots(2, Some(4096)));
        assert_eq!(listed_slots(br#"[{"id":0}]"#), slots(1, None));
        assert_eq!((listed_slots(b"[]"), listed_slots(b"{}")), (None, None));
        let two = br#"{"object":"list","data":[{"id":"a","max_model_len":4096},{"id":"b","max_model_len":32768}]}"#;
        let window = |window| Some(Told { slots: None, window: Some(window) });
        assert_eq!(vllm(two, Some("b")), window(32768));
        assert_eq!(vllm(two, None), None, "which of them is not known");
        assert_eq!(vllm(two, Some("c")), None);
        let adapter = br#"{"data":[{"id":"a","max_model_len":4096},{"id":"lora","max_model_len":null}]}"#;
        assert_eq!(vllm(adapter, None), window(4096));
    }
}
