//! Asks an endpoint whether it is well. Only a 2xx in time says yes: llama.cpp says 503 while it loads its model.

use std::time::Duration;

use super::asker::Asker;
use super::connect::Dialler;
use super::settings::EndpointSettings;

/// The probe of one endpoint.
pub struct HealthCheck {
    asker: Asker,
    timeout: Duration,
}

impl HealthCheck {
    /// `None` for an endpoint without a probe, or with one whose path makes no request.
    pub fn new(settings: &EndpointSettings, dialler: &Dialler) -> Option<Self> {
        let probe = settings.probe.as_ref()?;
        Some(Self { asker: Asker::new(settings, &probe.path, dialler)?, timeout: probe.timeout })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why it is not well, in our words.
    pub async fn ask(&self) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.asker.ask()).await {
            Ok(Ok((status, _))) if status.is_success() => Ok(()),
            Ok(Ok((status, _))) => Err(format!("HTTP {}", status.as_u16())),
            Ok(Err(failure)) => Err(failure.class.as_str().to_owned()),
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        }
    }
}
