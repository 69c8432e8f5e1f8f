//! Admission under load.
