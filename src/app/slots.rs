//! Asks servers that can tell how many sends they take at once and how much a prompt may hold, and hands it to the limits
//! and to what is known of their abilities.
//!
//! llama.cpp's server is asked, by its `/props` and its `/slots`: one that the config names as such from the start on, any
//! other once an answer of its own has shown what it is; and vLLM's, by its list of models, where the config names it.
//! Nothing depends on it: who does not tell is learnt from.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::dialect::Dialect;
use crate::server::Gateway;
use crate::transport::{Dialler, Props};

/// How often a server is asked: its slots change with a restart only.
const EVERY: Duration = Duration::from_secs(60);

/// One task per endpoint that may tell; each runs until it is dropped.
pub fn askers(gateway: &Arc<Gateway>, dialler: &Dialler) -> Vec<impl Future<Output = ()> + Send + use<>> {
    let endpoints = gateway.settings().endpoints.iter().enumerate();
    let may_tell = endpoints.filter(|(_, it)| matches!(it.dialect, Dialect::Auto | Dialect::LlamaCpp | Dialect::Vllm));
    let props = may_tell.filter_map(|(number, it)| Some((number, it.dialect, Props::new(it, dialler)?)));
    props.map(|(number, dialect, props)| ask(Arc::clone(gateway), number, dialect, props)).collect()
}

async fn ask(gateway: Arc<Gateway>, endpoint: usize, dialect: Dialect, props: Props) {
    let slots = &gateway.stacks().slots;
    if dialect == Dialect::Auto {
        slots.spotted(endpoint).await;
    }
    loop {
        if let Some(told) = props.told().await {
            if let Some(total) = told.slots {
                slots.found(endpoint, total, clock::now());
            }
            if let Some(window) = told.window {
                gateway.stacks().capabilities.tell(endpoint, window);
            }
        }
        clock::sleep(EVERY).await;
    }
}
