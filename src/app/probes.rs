//! Asks endpoints for their health in the background, where the config says so.
//!
//! Its sends are not calls': they count in no budget, no limit, no breaker and no metric of sends. Whoever fails is
//! passed over while another can be asked, and that is all.

use std::sync::Arc;

use crate::call::Signal;
use crate::clock;
use crate::policy::probe::{Probe, ProbeSettings};
use crate::server::Gateway;
use crate::transport::{Dialler, HealthCheck};

/// One task per endpoint with a probe; each runs until it is dropped.
pub fn askers(gateway: &Arc<Gateway>, dialler: &Dialler) -> Vec<impl Future<Output = ()> + Send + use<>> {
    let endpoints = gateway.settings().endpoints.iter().enumerate();
    let probed = endpoints.filter_map(|(number, it)| Some((number, it.probe.clone()?, HealthCheck::new(it, dialler)?)));
    probed.map(|(number, settings, check)| ask(Arc::clone(gateway), number, settings, check)).collect()
}

async fn ask(gateway: Arc<Gateway>, endpoint: usize, settings: ProbeSettings, check: HealthCheck) {
    let mut probe = Probe::new(&settings).known(gateway.stacks().health.is_up(endpoint));
    clock::sleep(settings.first(clock::sample())).await;
    loop {
        let trouble = check.ask().await.err();
        let turned = probe.told(trouble.is_none());
        let up = probe.is_up();
        gateway.stacks().health.turn(endpoint, up);
        gateway.sink().emit(Signal::Probed { endpoint, trouble, up, turned });
        clock::sleep(settings.pause(clock::sample())).await;
    }
}
