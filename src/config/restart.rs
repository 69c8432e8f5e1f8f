//! What takes effect at a restart only: what is bound, opened or started once.
//!
//! Owns the comparison. Invariant: every key that the table of keys marks so is compared here, and no other; a change of
//! one is said and has no effect.

use super::settings::Settings;

/// A key, whether two settings differ in it, and how the old value is kept.
struct Fixed {
    key: &'static str,
    differs: fn(&Settings, &Settings) -> bool,
    keep: fn(&mut Settings, &Settings),
}

macro_rules! fixed {
    ($($key:literal => $($field:ident).+;)*) => {
        &[$(Fixed {
            key: $key,
            differs: |old, new| old.$($field).+ != new.$($field).+,
            keep: |new, old| new.$($field).+.clone_from(&old.$($field).+),
        },)*]
    };
}

const FIXED: &[Fixed] = fixed! {
    "server.listen" => server.listen;
    "server.max_header_bytes" => server.max_header_bytes;
    "server.header_timeout" => server.header_timeout;
    "server.write_timeout" => server.write_timeout;
    "server.max_connections" => server.max_connections;
    "admin.listen" => admin.listen;
    "log.format" => log.format;
    "log.level" => log.level;
    "state.dir" => state_dir;
};

/// The keys in which `new` differs from `old` and that need a restart; `new` is given the old values.
pub fn hold(old: &Settings, new: &mut Settings) -> Vec<&'static str> {
    let differing: Vec<&Fixed> = FIXED.iter().filter(|it| (it.differs)(old, new)).collect();
    differing.iter().for_each(|it| (it.keep)(new, old));
    differing.iter().map(|it| it.key).collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys::ROWS;
    use super::super::resolve::built_in;
    use super::*;

    #[test]
    fn it_compares_the_keys_that_are_marked_and_no_other() {
        let marked: Vec<&str> = ROWS.iter().filter(|row| row.restart).map(|row| row.path).collect();
        assert_eq!(FIXED.iter().map(|it| it.key).collect::<Vec<_>>(), marked);
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_is_named() {
        let old = built_in();
        let mut new = built_in();
        new.server.listen.set_port(1);
        new.server.max_connections = 3;
        new.server.max_header_bytes += 1;
        new.server.header_timeout *= 2;
        new.server.write_timeout *= 2;
        new.server.max_body = 7;
        new.admin.listen.set_port(2);
        new.log.level = "debug".into();
        new.log.format = super::super::LogFormat::Json;
        new.state_dir = Some("x".into());
        let named = hold(&old, &mut new);
        assert_eq!(named.len(), FIXED.len());
        assert_eq!(
            (new.server.listen, new.admin.listen, new.state_dir.clone()),
            (old.server.listen, old.admin.listen, None)
        );
        assert_eq!((new.server.max_connections, &new.log), (old.server.max_connections, &old.log));
        assert_eq!(new.server.max_body, 7, "the rest is as it was asked for");
        assert_eq!(hold(&old, &mut new), [""; 0]);
    }
}
