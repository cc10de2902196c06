//! What is said of keywords that are not carried over.

use super::super::super::place::Place;
use super::super::super::raw::{nearest, shorten};
use super::super::keywords::{Block, Otherwise, blocks, blocks_of};
use super::super::tree::Statement;
use super::{Known, Mapper, Mode};

impl<'d> Mapper<'d, '_, '_> {
    /// A keyword of keepalived's that the TOML section has no key for.
    pub(super) fn left_out(&mut self, known: Known<'d, '_>) {
        let name = known.keyword.name;
        match (known.keyword.otherwise, self.mode) {
            (Otherwise::Silent, _) => {}
            (Otherwise::Refuse(why), Mode::Use) => self.report.unsupported(
                known.at(),
                known.outer,
                format_args!("the keyword {name}"),
                format_args!("no {name} ({why})"),
                "remove it if that is as it should be",
            ),
            (Otherwise::Warn(why), _) | (Otherwise::Refuse(why), Mode::Import) => {
                let message = format!("{name} is left out: {why}");
                self.report.unmapped(known.at(), known.outer, message);
            }
        }
    }

    /// A part of a statement that is not carried over, and does not matter much.
    pub(super) fn part_left_out(&mut self, at: usize, place: &Place<'_>, part: &str, why: &str) {
        let message = format!("{part} is left out: {why}");
        self.report.unmapped(at, place, message);
    }

    /// A part of a statement without which traffic would take another way.
    pub(super) fn part_refused(&mut self, at: usize, place: &Place<'_>, part: &str, why: &str) {
        match self.mode {
            Mode::Use => self.report.unsupported(
                at,
                place,
                part,
                format_args!("no such thing ({why})"),
                "remove it if that is as it should be",
            ),
            Mode::Import => self.part_left_out(at, place, part, why),
        }
    }

    /// A word that keepalived does not know either.
    pub(super) fn unknown(
        &mut self,
        statement: &Statement,
        block: &'static Block,
        place: &Place<'_>,
    ) {
        let name = &statement.keyword.text;
        let known = || block.keywords().map(|keyword| keyword.name);
        // What is in a block further in has been written too early.
        let inside = blocks_of(block).into_iter();
        let mut owners = inside.chain(blocks()).filter(|b| b.keyword(name).is_some());
        let remedy = if let Some(near) = nearest(name, known()) {
            format!("did you mean {near}?")
        } else if let Some(owner) = owners.next() {
            format!("move it, it belongs in {}", owner.name)
        } else {
            "remove it".to_owned()
        };
        self.report.error(
            statement.keyword.at,
            place,
            format_args!("the unknown keyword {:?}", shorten(name)),
            format_args!("a keyword of {}", block.name),
            remedy,
        );
    }
}
