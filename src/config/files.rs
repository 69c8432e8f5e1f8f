//! The files a config was read from: the config itself, and the secrets it names.
//!
//! Owns telling whether any of them holds something else now. Invariant: what is compared is what was in fact read, so a
//! change between two looks is never missed.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// One file and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its text; `None` when it could not be read.
    held: Option<[u8; 32]>,
}

impl Source {
    /// Reads a file, and remembers what it held.
    pub fn read(path: &Path) -> (Self, io::Result<String>) {
        let text = std::fs::read_to_string(path);
        let held = text.as_ref().ok().map(|text| Sha256::digest(text).into());
        (Self { path: path.to_owned(), held }, text)
    }

    /// Whether it holds something else now, or can be read now, or no longer.
    pub fn has_changed(&self) -> bool {
        Self::read(&self.path).0 != *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_content_that_counts_whatever_the_path_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("one")).unwrap();
        std::fs::create_dir(path("two")).unwrap();
        for (at, text) in [("one", "a"), ("two", "a")] {
            std::fs::write(path(at).join("file"), text).unwrap();
        }
        let link = |to: &str| {
            drop(std::fs::remove_file(path("new")));
            std::os::unix::fs::symlink(path(to), path("new")).unwrap();
            std::fs::rename(path("new"), path("data")).unwrap();
        };
        link("one");
        let (source, text) = Source::read(&path("data").join("file"));
        assert_eq!((text.unwrap().as_str(), source.has_changed()), ("a", false));
        // As Kubernetes swaps a ConfigMap: the link leads elsewhere.
        link("two");
        assert!(!source.has_changed(), "to the same text");
        std::fs::write(path("two").join("file"), "b").unwrap();
        assert!(source.has_changed());
        std::fs::remove_file(path("two").join("file")).unwrap();
        assert!(source.has_changed(), "it is gone");
        let (gone, text) = Source::read(&path("data").join("file"));
        assert!(text.is_err() && !gone.has_changed());
        std::fs::write(path("two").join("file"), [0xff]).unwrap();
        assert!(!gone.has_changed(), "still nothing that can be read");
    }
}
