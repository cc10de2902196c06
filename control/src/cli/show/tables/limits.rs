//! What `show services` says of limits.

use super::scaled;
use crate::api::view::Limits;

/// What limits new connections, and how many it refused.
pub(super) fn limited(limits: &Limits) -> String {
    let Limits {
        max_connections,
        new_connections_per_second,
        new_connections_burst,
        source_max_connections,
        source_new_connections_per_second,
        source_new_connections_burst,
        source_granularity,
        syn_proxy,
        syn_proxy_threshold: _,
        under_attack,
        half_open_connections,
        refused_total,
    } = limits;
    let pair = |most: &Option<u32>, rate: &Option<u32>, burst: &Option<u32>| {
        let most = most.map(|most| format!("{most} connections"));
        let rate = rate.zip(*burst);
        let rate = rate.map(|(rate, burst)| format!("{rate} new/s, burst {burst}"));
        let words: Vec<_> = most.into_iter().chain(rate).collect();
        words.join(", ")
    };
    let all = pair(
        max_connections,
        new_connections_per_second,
        new_connections_burst,
    );
    let source = pair(
        source_max_connections,
        source_new_connections_per_second,
        source_new_connections_burst,
    );
    let mut words = String::new();
    if !all.is_empty() {
        words += &format!("; at most {all}");
    }
    if let Some(granularity) = source_granularity {
        words += &format!("; each /{granularity} at most {source}");
    }
    if *under_attack {
        words += &format!("; under attack, {half_open_connections} half open: SYN proxy");
    } else if *syn_proxy != "off" {
        words += &format!("; SYN proxy {syn_proxy}");
    }
    let refused: u64 = refused_total.values().sum();
    if refused > 0 {
        words += &format!("; {} refused", scaled(refused));
    }
    words
}
