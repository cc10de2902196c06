//! Any text as a keepalived.conf: no panic, every refusal says why, and what is accepted is the same
//! after it was printed as TOML and read again.

#![no_main]

use std::path::Path;

use control::config::{parse, parse_keepalived, to_toml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_keepalived(text, Path::new("fuzzed.conf")) {
        Ok(checked) => {
            let printed = to_toml(&checked.config);
            let again = parse(&printed, Path::new("printed.toml"))
                .unwrap_or_else(|diagnostics| panic!("{diagnostics}\nin\n{printed}"));
            assert_eq!(again.config, checked.config, "printed as\n{printed}");
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            assert!(diagnostics.to_string().starts_with("fuzzed.conf:"));
        }
    }
});
