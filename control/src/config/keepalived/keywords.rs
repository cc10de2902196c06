//! Every keyword of keepalived 2.2, and what becomes of it: one line each.
//!
//! A keyword is carried over when the section of the TOML file that its block
//! is mapped to has its key; until it has, and for those that will never be,
//! the line says what is lost. Where that changes how packets are forwarded or
//! which director is master, the file is refused, else there is a warning.
//! So a key that the TOML file gains is read from keepalived.conf as well,
//! without a change here, if its line has the right [`Kind`].

mod checks;
mod global;
mod lvs;
mod vrrp;

use super::super::check::SPECS;
use super::super::raw::Spec;

pub(super) use global::ROOT;
pub(super) use lvs::{REAL_SERVER, VIRTUAL_SERVER};

/// A block of keepalived.conf and the section that it is mapped to.
#[derive(Debug)]
pub(super) struct Block {
    /// As keepalived names it.
    pub(super) name: &'static str,
    /// As the documentation of the TOML file heads the section.
    pub(super) heading: &'static str,
    pub(super) keywords: &'static [Keyword],
    /// More keywords, which several blocks have.
    pub(super) shared: &'static [Keyword],
}

/// One keyword of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The key of the TOML section.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) otherwise: Otherwise,
}

/// How a statement is read, and what it is in TOML.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Not at all: what it does is not done here.
    Nothing,
    /// A line: one value.
    Value(Shape),
    /// `DR`, or `TUN type gue port 6080`: text, `tun_type` and `tun_port`.
    Method,
    /// `tcp SECONDS tcpfin SECONDS udp SECONDS`, of `[appliance.timeouts]`.
    Timeouts,
    /// A block of lines: a list of texts.
    Lines,
    /// A block of words, on one line or several: a list of texts.
    WordList,
    /// A block of addresses with options: a list of texts.
    Addresses,
    /// A block of routes or rules: a list of texts.
    Routing,
    /// A block: a table.
    Section(&'static Block),
    /// Blocks in one of [`Kind::SmtpChecks`]: each a check of its own.
    Hosts(&'static Block),
    /// Blocks: a list of tables.
    Sections(&'static Block),
    /// The same, of `FILE_CHECK`: with the file and the weight of a `track_file`.
    FileChecks(&'static Block),
    /// The same, of `SMTP_CHECK`: one check, and one for each [`Kind::Hosts`] in it.
    SmtpChecks(&'static Block),
    /// Blocks with a name: a list of tables with the key `name`.
    Named(&'static Block),
    /// `virtual_server`, with its address, mark or group.
    VirtualServer,
    /// `real_server`, with its address.
    RealServer,
    /// `virtual_server_group`: read where a virtual server names it.
    Group,
}

/// What the words after a keyword are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// One word: text.
    Text,
    /// One word that may be in small letters: text in capitals.
    Upper,
    /// One word with escapes: text.
    Escaped,
    /// All words: one text.
    Words,
    /// A command, perhaps a user and a group: text, or a table of both.
    Script,
    /// A command, all words of it: text.
    Command,
    /// A whole number.
    Number,
    /// A whole number, or text: the number and `reverse`.
    Weight,
    /// Seconds, with a fraction or without.
    Time,
    /// Nothing, or one of keepalived's words for yes and no: true or false.
    Flag,
    /// Like a flag, but text when there are words.
    FlagOrWords,
    /// `IP [PORT]`: `"IP:PORT"`.
    Address,
    /// Seconds, 360 when there are none.
    Persistence,
}

/// What to say of a keyword that the TOML section has no key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// It is a warning: what is done instead, or not done.
    Warn(&'static str),
    /// It is an error, because without it packets go elsewhere or another
    /// director is master.
    Refuse(&'static str),
    /// Nothing: what it asks for is done in any case.
    Silent,
}

impl Block {
    pub(super) fn keywords(&self) -> impl Iterator<Item = &'static Keyword> {
        self.keywords.iter().chain(self.shared)
    }

    pub(super) fn keyword(&self, name: &str) -> Option<&'static Keyword> {
        self.keywords().find(|keyword| keyword.name == name)
    }

    /// Whether the TOML section has the keyword's key.
    pub(super) fn maps(&self, keyword: &Keyword) -> bool {
        let spec = SPECS.iter().find(|spec| spec.heading == self.heading);
        let has_key = |spec: &&Spec| spec.knows(keyword.key);
        match keyword.kind {
            Kind::Nothing => false,
            // They become keys of other sections.
            Kind::Timeouts | Kind::Group | Kind::Hosts(_) => true,
            Kind::Value(_)
            | Kind::Method
            | Kind::Lines
            | Kind::WordList
            | Kind::Addresses
            | Kind::Routing
            | Kind::Section(_)
            | Kind::Sections(_)
            | Kind::FileChecks(_)
            | Kind::SmtpChecks(_)
            | Kind::Named(_)
            | Kind::VirtualServer
            | Kind::RealServer => spec.is_some_and(has_key),
        }
    }

    /// The blocks inside this one.
    pub(super) fn inner(&self) -> impl Iterator<Item = &'static Block> {
        self.keywords().filter_map(|keyword| match keyword.kind {
            Kind::Section(block)
            | Kind::Sections(block)
            | Kind::FileChecks(block)
            | Kind::SmtpChecks(block)
            | Kind::Hosts(block)
            | Kind::Named(block) => Some(block),
            Kind::VirtualServer => Some(&VIRTUAL_SERVER),
            Kind::RealServer => Some(&REAL_SERVER),
            Kind::Nothing
            | Kind::Value(_)
            | Kind::Method
            | Kind::Timeouts
            | Kind::Lines
            | Kind::WordList
            | Kind::Addresses
            | Kind::Routing
            | Kind::Group => None,
        })
    }
}

/// Every block, the file's own level first, each once.
pub(super) fn blocks() -> Vec<&'static Block> {
    blocks_of(&ROOT)
}

/// A block and every one inside of it, the outer ones first, each once.
pub(super) fn blocks_of(block: &'static Block) -> Vec<&'static Block> {
    let mut blocks = vec![block];
    let mut next = 0;
    while let Some(block) = blocks.get(next) {
        for inner in block.inner() {
            if blocks.iter().all(|known| known.name != inner.name) {
                blocks.push(inner);
            }
        }
        next += 1;
    }
    blocks
}

/// A keyword whose key has the same name, and which changes forwarding or
/// failover.
const fn keyword(name: &'static str, kind: Kind) -> Keyword {
    Keyword {
        name,
        key: name,
        kind,
        otherwise: Otherwise::Refuse("it changes what happens to traffic"),
    }
}

/// The same of a keyword with one value.
const fn value(name: &'static str, shape: Shape) -> Keyword {
    keyword(name, Kind::Value(shape))
}

/// A keyword that is never carried over, and what is done instead.
const fn ignored(name: &'static str, why: &'static str) -> Keyword {
    keyword(name, Kind::Nothing).or_warn(why)
}

/// A keyword for what is done here in any case.
const fn silent(name: &'static str) -> Keyword {
    Keyword {
        otherwise: Otherwise::Silent,
        ..keyword(name, Kind::Nothing)
    }
}

/// A keyword that is never carried over and without which the file would do
/// something else.
const fn refused(name: &'static str, why: &'static str) -> Keyword {
    keyword(name, Kind::Nothing).or_refuse(why)
}

impl Keyword {
    /// The key has this name in TOML.
    const fn named(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    const fn or_warn(self, why: &'static str) -> Self {
        let otherwise = Otherwise::Warn(why);
        Self { otherwise, ..self }
    }

    const fn or_refuse(self, why: &'static str) -> Self {
        let otherwise = Otherwise::Refuse(why);
        Self { otherwise, ..self }
    }
}
