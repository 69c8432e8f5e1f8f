//! Base URLs of endpoints: what is accepted, and the one form in which they are kept.
//!
//! Owns the shape; whether a server is there is for `check` to find out. Invariant: what [`base`] returns has an
//! http scheme, a host, a path, no trailing slash, and nothing that could carry a secret.

use http::Uri;

/// Why a text is no base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    /// In a few words.
    pub label: String,
    /// The way out.
    pub help: String,
}

/// The base URL in the form that is kept: `/v1` added where there is no path, no slash at the end.
pub fn base(text: &str) -> Result<String, BadUrl> {
    let bad = |label: &str, help: &str| Err(BadUrl { label: label.to_owned(), help: help.to_owned() });
    let text = text.trim();
    if !text.contains("://") {
        return bad("has no scheme", "begin with `http://` or `https://`");
    }
    if text.contains('#') {
        return bad("has a fragment", "remove `#` and what follows");
    }
    if text.contains('?') {
        return bad("has a query", "remove `?` and what follows: it would be lost on every call");
    }
    let Ok(uri) = text.parse::<Uri>() else {
        return bad("not a URL", "write something like `http://127.0.0.1:11434/v1`");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return bad("neither http nor https", "begin with `http://` or `https://`");
    }
    let Some(authority) = uri.authority() else {
        return bad("has no host", "write something like `http://127.0.0.1:11434/v1`");
    };
    if authority.as_str().contains('@') {
        return bad("has a user name in it", "put the credential into `key` or `key_file`");
    }
    if authority.host().is_empty() || authority.port().is_some() != authority.port_u16().is_some() {
        return bad("has no host or no valid port", "write something like `http://127.0.0.1:11434/v1`");
    }
    if authority.port_u16().is_none() && authority.as_str().ends_with(':') {
        return bad("has no port after `:`", "write something like `http://127.0.0.1:11434/v1`");
    }
    let path = uri.path().trim_end_matches('/');
    for tail in ["/chat/completions", "/completions", "/embeddings", "/models", "/messages", "/responses"] {
        if let Some(start) = path.strip_suffix(tail) {
            let scheme = uri.scheme_str().unwrap_or("http");
            return bad("is one operation, not the base", &format!("write `{scheme}://{authority}{start}`"));
        }
    }
    let path = if path.is_empty() { "/v1" } else { path };
    Ok(format!("{}://{}{path}", uri.scheme_str().unwrap_or("http"), authority.as_str().to_ascii_lowercase()))
}

/// Scheme, host and port of a base URL, with the default port written out.
pub fn origin(base: &str) -> (String, String, u16) {
    let uri: Uri = base.parse().unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or("http").to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    (scheme, uri.host().unwrap_or("").to_ascii_lowercase(), port)
}

/// Whether the host of a base URL is this machine.
pub fn is_loopback(base: &str) -> bool {
    let (_, host, _) = origin(base);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_kept_in_one_form() {
        for (text, kept) in [
            ("http://localhost:11434", "http://localhost:11434/v1"),
            ("http://localhost:11434/", "http://localhost:11434/v1"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
            ("https://Host.example/api/v3", "https://host.example/api/v3"),
            ("http://[::1]:8080", "http://[::1]:8080/v1"),
        ] {
            assert_eq!(base(text).as_deref(), Ok(kept));
        }
    }

    #[test]
    fn what_is_no_base_is_refused() {
        for text in [
            "localhost:11434",
            "ftp://host/v1",
            "http://me:pw@host/v1",
            "http://host/v1?key=x",
            "http://host/v1#x",
            "http://",
            "http://host:99999/v1",
            "http://ho st/v1",
            "https://api.openai.com/v1/chat/completions",
            "",
        ] {
            assert!(base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_known() {
        for (text, yes) in [
            ("http://127.0.0.1:1/v1", true),
            ("http://[::1]:1/v1", true),
            ("http://localhost/v1", true),
            ("http://10.0.0.1/v1", false),
            ("http://localhost.evil.example/v1", false),
        ] {
            assert_eq!(is_loopback(text), yes, "{text}");
        }
    }
}
