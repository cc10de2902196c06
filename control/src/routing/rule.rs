//! `from 192.168.1.100 table 100 priority 50`

use std::fmt;
use std::str::FromStr;

use dataplane::bpf::Prefix;
use serde::{Deserialize, Serialize};

use super::Expected;
use super::words::{Words, option};

const OPTIONS: &str = "not, from, to, fwmark, iif, oif, priority, inet, inet6, \
     no_track and one of table, blackhole, unreachable and prohibit";

/// What becomes of packets that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// They are looked up in this table.
    Table(u32),
    Blackhole,
    Unreachable,
    Prohibit,
}

/// A rule of the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VirtualRule {
    pub is_ipv4: bool,
    /// It is about all packets but these.
    pub not: bool,
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    pub fwmark: Option<u32>,
    /// Which bits of the mark are compared; `None`: all.
    pub fwmask: Option<u32>,
    pub iif: Option<String>,
    pub oif: Option<String>,
    /// `None`: the kernel puts it before all others.
    pub priority: Option<u32>,
    pub action: RuleAction,
    /// `iif` and `oif` may be down without a fault of the instance.
    pub no_track: bool,
}

/// A mark in decimal, or in hexadecimal after 0x.
fn mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl FromStr for VirtualRule {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let mut words = Words::of(text);
        let (mut family, mut not, mut action) = (None, false, None);
        let (mut from, mut to, mut iif, mut oif) = (None, None, None, None);
        let (mut fwmark, mut fwmask, mut priority) = (None, None, None);
        let mut no_track = false;
        while let Some(word) = words.next() {
            let before = action;
            match word {
                "not" => not = true,
                "from" => from = prefix(&mut words)?,
                "to" => to = prefix(&mut words)?,
                "fwmark" => {
                    let expected = || Expected("MARK or MARK/MASK after fwmark".to_owned());
                    let both = words.next().ok_or_else(expected)?;
                    let (value, mask) = match both.split_once('/') {
                        Some((value, mask)) => (value, Some(mark(mask).ok_or_else(expected)?)),
                        None => (both, None),
                    };
                    fwmark = Some(mark(value).ok_or_else(expected)?);
                    fwmask = mask;
                }
                "iif" | "dev" => iif = Some(words.interface(word)?),
                "oif" => oif = Some(words.interface(word)?),
                "priority" | "preference" | "pref" | "order" => {
                    priority = Some(words.after(word, "a number")?);
                }
                "table" | "lookup" => action = Some(RuleAction::Table(words.table(word)?)),
                "blackhole" => action = Some(RuleAction::Blackhole),
                "unreachable" => action = Some(RuleAction::Unreachable),
                "prohibit" => action = Some(RuleAction::Prohibit),
                "no_track" => no_track = true,
                "inet" => family = Some(true),
                "inet6" => family = Some(false),
                _ => return Err(Expected(format!("{OPTIONS}, not {word:?}"))),
            }
            if before.is_some() && action != before {
                let what = "one of table, blackhole, unreachable and prohibit";
                return Err(Expected(what.to_owned()));
            }
        }
        let versions = [from, to].into_iter().flatten();
        let mut versions = versions.map(|prefix: Prefix| prefix.address().is_ipv4());
        let is_ipv4 = family.or_else(|| versions.clone().next()).unwrap_or(true);
        if versions.any(|other| other != is_ipv4) {
            return Err(Expected("addresses of one IP version".to_owned()));
        }
        let expected =
            || Expected("what to do: table, blackhole, unreachable or prohibit".to_owned());
        Ok(Self {
            is_ipv4,
            not,
            from,
            to,
            fwmark,
            fwmask,
            iif,
            oif,
            priority,
            action: action.ok_or_else(expected)?,
            no_track,
        })
    }
}

/// A prefix; `all`, as every packet has an address, is none.
fn prefix(words: &mut Words<'_>) -> Result<Option<Prefix>, Expected> {
    match words.next().unwrap_or_default() {
        "all" => Ok(None),
        word => Words::prefix(word).map(Some),
    }
}

impl fmt::Display for VirtualRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ipv4 { "inet" } else { "inet6" })?;
        f.write_str(if self.not { " not" } else { "" })?;
        option(f, "from", self.from)?;
        option(f, "to", self.to)?;
        option(f, "fwmark", self.fwmark)?;
        if let Some(mask) = self.fwmask {
            write!(f, "/{mask:#x}")?;
        }
        option(f, "iif", self.iif.as_ref())?;
        option(f, "oif", self.oif.as_ref())?;
        option(f, "priority", self.priority)?;
        match self.action {
            RuleAction::Table(table) => write!(f, " table {table}")?,
            RuleAction::Blackhole => f.write_str(" blackhole")?,
            RuleAction::Unreachable => f.write_str(" unreachable")?,
            RuleAction::Prohibit => f.write_str(" prohibit")?,
        }
        f.write_str(if self.no_track { " no_track" } else { "" })
    }
}

impl From<VirtualRule> for String {
    fn from(rule: VirtualRule) -> Self {
        rule.to_string()
    }
}

impl TryFrom<String> for VirtualRule {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse()
    }
}
