//! A file of TOML in pieces: what belongs to a `[[virtual_server]]` is read, checked and forgotten by itself. The
//! document of a thousand of them takes a hundred megabytes, and getting those from the kernel takes longer than
//! anything else about reading it.
//!
//! Invariant: no file means anything else in pieces than as a whole. One that is not written header by header, or has
//! a mistake in its syntax, has no pieces. That the line of a piece is a header at all, and no part of a text, shows
//! when what is left of the file has it as one; and the next piece begins where this one ends, because
//! a text or a list that is still open there is a mistake.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::Entry;
use super::{Config, VirtualServer};

/// Begins a piece.
const HEADER: &str = "[[virtual_server]]";

/// A configuration and the text it was read from, see [`Checked::text`](super::Checked::text): virtual servers whose text is the same
/// need not be read again.
#[derive(Clone, Debug)]
pub struct Known {
    pub config: Arc<Config>,
    pub text: Arc<str>,
}

/// Where the virtual servers of a text are.
#[derive(Debug)]
pub(super) struct Pieces<'t> {
    text: &'t str,
    /// By text: nothing else makes a virtual server what it is.
    known: HashMap<&'t str, &'t VirtualServer>,
    /// Ascending; none: everything is in the document.
    ranges: Vec<Range<usize>>,
    is_wrong: bool,
}

/// A virtual server as a document of its own, and the offset at which it begins.
#[derive(Debug)]
pub(super) struct Piece<'t> {
    document: Spanned<DeTable<'t>>,
    base: usize,
}

impl Piece<'_> {
    /// The virtual server, if it is all that is there.
    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        let document = self.document.get_ref();
        let servers = document.get("virtual_server")?.get_ref().as_array()?;
        let [server] = servers.as_ref() else {
            return None;
        };
        (document.len() == 1).then_some(Entry {
            entries: server.get_ref().as_table()?,
            at: self.base + server.span().start,
            base: self.base,
        })
    }
}

impl<'t> Pieces<'t> {
    pub(super) fn none() -> Self {
        Self::new("", Vec::new())
    }

    /// From each header to the next one that does not belong to it.
    pub(super) fn of(text: &'t str) -> Self {
        let mut ranges = Vec::new();
        let mut begun = None;
        let mut end = 0;
        for line in text.split_inclusive('\n') {
            end += line.len();
            let bare = line.trim_start();
            let start = end - bare.len();
            let begins = bare.starts_with(HEADER);
            let belongs =
                bare.starts_with("[[virtual_server.") || bare.starts_with("[virtual_server.");
            if begins || (bare.starts_with('[') && !belongs) {
                ranges.extend(begun.take().map(|begun| begun..start));
                begun = begins.then_some(start);
            }
        }
        ranges.extend(begun.map(|begun| begun..text.len()));
        Self::new(text, ranges)
    }

    /// With what is known from a text that was read in pieces.
    pub(super) fn with(mut self, known: &'t Known) -> Self {
        let ranges = Self::of(&known.text).ranges.into_iter();
        let texts = ranges.map(|range| &known.text[range]);
        self.known = texts.zip(&known.config.virtual_servers).collect();
        self
    }

    fn new(text: &'t str, ranges: Vec<Range<usize>>) -> Self {
        Self {
            text,
            known: HashMap::new(),
            ranges,
            is_wrong: false,
        }
    }

    /// True if the virtual server is a piece; else it is in the document.
    pub(super) fn has(&self, index: usize) -> bool {
        index < self.ranges.len()
    }

    /// The text with only the headers of its virtual servers; every other byte keeps its offset.
    pub(super) fn rest(&self) -> String {
        let mut rest = String::with_capacity(self.text.len());
        let mut copied = 0;
        for range in &self.ranges {
            rest.push_str(&self.text[copied..range.start + HEADER.len()]);
            // The next header has a line of its own.
            let blank = range.len() - HEADER.len();
            rest.extend((0..blank).map(|index| if index == 0 { '\n' } else { ' ' }));
            copied = range.end;
        }
        rest.push_str(&self.text[copied..]);
        rest
    }

    /// True if the virtual servers of a document, which was made from [`rest`](Self::rest), are these pieces.
    pub(super) fn are_those_of(&self, document: &DeTable<'_>) -> bool {
        let written = document.get("virtual_server");
        let Some(written) = written.and_then(|value| value.get_ref().as_array()) else {
            return self.ranges.is_empty();
        };
        let is_at = |(value, range): (&Spanned<DeValue<'_>>, &Range<usize>)| {
            let table = value.get_ref().as_table();
            table.is_some_and(|table| table.is_empty()) && value.span().start == range.start
        };
        written.len() == self.ranges.len() && written.iter().zip(&self.ranges).all(is_at)
    }

    /// The virtual server if its text is known, about which there is nothing to say then.
    pub(super) fn known(&self, index: usize) -> Option<&'t VirtualServer> {
        let range = self.ranges.get(index)?.clone();
        self.known.get(&self.text[range]).copied()
    }

    /// Reads one; `None`: it has mistakes, and the pieces are [wrong](Self::are_wrong).
    pub(super) fn read(&mut self, index: usize) -> Option<Piece<'t>> {
        let range = self.ranges.get(index)?.clone();
        let base = range.start;
        let document = DeTable::parse(&self.text[range]).ok();
        let piece = document.map(|document| Piece { document, base });
        let piece = piece.filter(|piece| piece.entry().is_some());
        self.is_wrong |= piece.is_none();
        piece
    }

    /// True if nothing follows from what was read: the text is to be read as a whole.
    pub(super) fn are_wrong(&self) -> bool {
        self.is_wrong
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::check::{in_pieces, parse, parse_after, whole};
    use super::Known;

    const SERVER: &str = "[[virtual_server]]\naddress = \"10.0.0.1:80\"\nlb_kind = \"DR\"\n";

    /// Lines that make every kind of file out of the right ones, and of wrong ones.
    const LINES: [&str; 25] = [
        "[[virtual_server]]\n",
        "[[virtual_server]]\naddress = \"10.0.0.2:80\"\nlb_kind = \"DR\"\n",
        "  [[virtual_server]] # comment\r\naddress = \"10.0.0.3:80\"\nlb_kind = \"DR\"\n",
        "[[virtual_server.real_server]]\naddress = \"10.0.1.1:80\"\n",
        "\t[[virtual_server.real_server]]\naddress = \"10.0.1.2:80\"\nweight = 70000\n",
        "[virtual_server.TCP_CHECK]\n",
        "[[\"virtual_server\"]]\n",
        "[[ virtual_server ]]\n",
        "[virtual_server]\n",
        "[[virtual_server]]address = \"10.0.0.4:80\"\n",
        "virtual_server = []\n",
        "local_addresses = [\"10.0.0.1\"]\n",
        "quorum_up = \"\"\"\n",
        "quorum_up = '''\n",
        "\"\"\"\n",
        "'''\n",
        "alarm = [\n",
        "[[1]],\n",
        "]\n",
        "[appliance]\n",
        "[[interface]]\nname = \"eth0\"\n",
        "lb_algo = \"rr\"\n",
        "wieght = 3\n",
        "no key\n",
        "[[virtual_servers]]\naddress = \"10.0.0.5:80\"\nlb_kind = \"NATT\"\n",
    ];

    /// Each right by itself.
    const SERVERS: [&str; 8] = [
        SERVER,
        "[[virtual_server]]\naddress = \"10.0.0.2:80\"\nlb_kind = \"DR\"\n",
        "[[virtual_server]]\naddress = \"10.0.0.2:80\"\nlb_kind = \"DR\"\nquorum = 2\n",
        "[[virtual_server]]\naddress = \"10.0.0.3:80\"\nlb_kind = \"DR\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.1.1:80\"\n",
        "[[virtual_server]]\naddress = \"10.0.0.3:80\"\nlb_kind = \"DR\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.1.1:80\"\nweight = 2\n",
        "[[virtual_server]]\naddress = \"10.0.0.4:80\"\nlb_kind = \"FULLNAT\"\nlocal_addresses = [\"10.0.1.1\"]\n\
         [[virtual_server.real_server]]\naddress = \"10.0.1.2:80\"\n",
        "[[interface]]\nname = \"eth0\"\n",
        "[[virtual_server]] # twice\naddress = \"10.0.0.2:80\"\nlb_kind = \"DR\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.1.3:80\"\n",
    ];

    fn agree(text: &str) -> Result<(), TestCaseError> {
        let path = Path::new("a.toml");
        if let Some(mut checked) = in_pieces(text, path, None) {
            if let Ok(checked) = &mut checked {
                checked.text = None;
            }
            prop_assert_eq!(checked, whole(text, path), "{}", text);
        }
        Ok(())
    }

    /// The second text is read as if the first had never been.
    fn forgets(before: &str, text: &str) -> Result<(), TestCaseError> {
        let path = Path::new("a.toml");
        let Ok(checked) = parse(before, path) else {
            return Ok(());
        };
        if let Some(text_before) = checked.text {
            let config = checked.config.into();
            let known = Known {
                config,
                text: text_before,
            };
            let after = parse_after(text, path, Some(&known));
            prop_assert_eq!(after, parse(text, path), "{}\nafter\n{}", text, before);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_file_in_pieces_is_what_it_is_as_a_whole(
            lines in prop::collection::vec(prop::sample::select(&LINES[..]), 0..9)
        ) {
            agree(&lines.concat())?;
            agree(&(SERVER.to_owned() + &lines.concat() + SERVER))?;
        }

        #[test]
        fn what_is_known_changes_nothing(
            before in prop::collection::vec(prop::sample::select(&SERVERS[..]), 0..5),
            after in prop::collection::vec(prop::sample::select(&SERVERS[..]), 0..5),
            line in prop::sample::select(&LINES[..])
        ) {
            let (before, after) = (before.concat(), after.concat());
            forgets(&before, &after)?;
            forgets(&before, &(after.clone() + line))?;
            forgets(&before, &(line.to_owned() + &after))?;
        }
    }

    #[test]
    fn what_is_written_as_usual_has_pieces() {
        let path = Path::new("a.toml");
        let usual = format!("[appliance]\n{SERVER}\n[[interface]]\nname = \"eth0\"\n");
        for text in [SERVER, &usual, "", SERVER.trim_end()] {
            assert!(in_pieces(text, path, None).is_some(), "{text}");
        }
        let text = "quorum_up = \"\"\"\n[[virtual_server]]\n\"\"\"\n";
        assert!(in_pieces(text, path, None).is_none(), "no header");
    }
}
