//! The keys of one ladder over the defaults of all.

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::RawLadder;

/// A ladder's own keys, and the defaults behind them.
pub struct Scope<'a> {
    pub(super) own: (&'a RawLadder, Path),
    pub(super) defaults: (&'a RawLadder, Path),
}

impl<'a> Scope<'a> {
    /// The scope of the ladder with this name.
    pub fn new(name: &str, own: &'a RawLadder, defaults: &'a RawLadder) -> Self {
        Self { own: (own, Path::of("ladder").key(name)), defaults: (defaults, Path::of("defaults")) }
    }

    /// The effective value, and its path.
    pub fn pick<T>(&self, keys: &[&str], get: impl Fn(&'a RawLadder) -> Option<T>) -> Option<(T, Path)> {
        [&self.own, &self.defaults].into_iter().find_map(|(raw, path)| Some((get(raw)?, path.keys(keys))))
    }

    /// The path of a value, or where it would be.
    pub fn path(&self, keys: &[&str], get: impl Fn(&'a RawLadder) -> bool) -> Path {
        let inherited = !get(self.own.0) && get(self.defaults.0);
        if inherited { self.defaults.1.keys(keys) } else { self.own.1.keys(keys) }
    }
}

/// Defaults for push ladders do not apply to a relay ladder; a key in its own table is a mistake.
pub fn refuse_in_relay(scope: &Scope<'_>, key: &str, is_there: fn(&RawLadder) -> bool, hint: &str, mistakes: &mut Mistakes) {
    if is_there(scope.own.0) {
        mistakes.note(&scope.own.1.key(key), "does not apply to a relay ladder", Some(hint.to_owned()));
    }
}
