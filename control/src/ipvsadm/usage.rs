//! `-h` and `-v`.

/// The version of ipvsadm and of IPVS that the appliance answers as.
pub(crate) const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// What `-h` prints after the version: the commands and options of
/// ipvsadm(8), in the layout that scripts may look for.
const USAGE: &str = include_str!("usage.txt");

/// All of `-h`.
#[must_use]
pub(crate) fn help() -> String {
    format!("{VERSION}{USAGE}")
}
