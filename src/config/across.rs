//! Checks between ladders: no shared group, and no ladder that consumes another one's topics.

use std::collections::BTreeMap;

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::RawLadder;
use crate::config::types::LadderConfig;
use crate::core::topics;

/// Checks all ladders against each other; ladders with mistakes are included as far as they could be read.
pub fn check(raw: &BTreeMap<String, RawLadder>, ladders: &[LadderConfig], mistakes: &mut Mistakes) {
    let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, ladder) in raw {
        let at = Path::of("ladder").key(name);
        if let Some(group) = ladder.group.as_deref().filter(|group| !group.trim().is_empty()) {
            if let Some(other) = groups.insert(group, name) {
                let hint = "two ladders in one group would each get a part of the partitions: name both sources in one ladder";
                mistakes.note(&at.key("group"), format!("is already the group of ladder `{other}`"), Some(hint.to_owned()));
            }
            if let Some(other) = raw.keys().find(|n| topics::mover_group(n) == group || topics::router_group(n) == group) {
                let what = format!("is the group of a worker of ladder `{other}`");
                mistakes.note(&at.key("group"), what, None);
            }
        }
        for (i, item) in ladder.sources.iter().flat_map(|items| items.0.iter()).enumerate() {
            let Ok(source) = &item.0 else { continue };
            if let Some(owner) = ladders.iter().find(|l| l.ladder.name() != name && l.ladder.owns_topic(source)) {
                let what = format!("is a topic of ladder `{}`", owner.ladder.name());
                let hint = "kladder's topics hold records between hops; consume the source of the first ladder instead";
                mistakes.note(&at.key("sources").index(i), what, Some(hint.to_owned()));
            }
        }
    }
}
