//! Who may call: client keys, known only by their hashes, compared in constant time.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::call::{CallError, Class};
use crate::config::ClientKey;

/// The key the client showed; `None` where no key is asked for.
///
/// # Errors
/// `bad_request` with status 401 when a key is asked for and none that is known was shown.
pub fn check<'a>(keys: &'a [ClientKey], headers: &HeaderMap) -> Result<Option<&'a ClientKey>, CallError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let value = value.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let bare = || ["x-api-key", "api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let Some(shown) = bearer.or_else(bare) else {
        return Err(refused("no client key: send `Authorization: Bearer <key>`"));
    };
    let hash = Sha256::digest(shown.as_bytes());
    // Every key is compared, so that the time taken tells nothing of which one it was.
    let mut found = None;
    for key in keys {
        if bool::from(hash.as_slice().ct_eq(&key.sha256)) {
            found = Some(key);
        }
    }
    found.map(Some).ok_or_else(|| refused("unknown client key: none of `server.keys` has this key's hash"))
}

fn refused(message: &str) -> CallError {
    CallError::local(Class::BadRequest, message).at("authorization").status(401)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Priority;

    #[test]
    fn only_a_known_key_gets_in() {
        let keys = [ClientKey {
            name: "search".into(),
            sha256: Sha256::digest(b"sk-1").into(),
            priority: Priority::Default,
            limits: Default::default(),
        }];
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            check(&keys, &headers).map(|key| key.map(|key| key.name.clone()))
        };
        assert_eq!(with("authorization", "Bearer sk-1").unwrap().as_deref(), Some("search"));
        assert_eq!(with("x-api-key", "sk-1").unwrap().as_deref(), Some("search"));
        for (name, value) in [("authorization", "Bearer sk-2"), ("authorization", "sk-1"), ("x-other", "sk-1")] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.http_status(), 401);
            assert!(!error.message.contains("sk-"), "a key in an error: {}", error.message);
        }
        assert_eq!(check(&[], &HeaderMap::new()).unwrap(), None);
    }
}
