//! Statements and blocks, before anyone asks what they mean.

use super::line::Line;
use super::mistake::Mistake;
use super::words::{Token, Word, tokens};

/// A keyword, its arguments, and the block after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) keyword: Word,
    pub(super) arguments: Vec<Word>,
    pub(super) block: Option<Vec<Statement>>,
}

/// Deeper than keepalived goes anywhere, and not deep enough for what walks
/// the tree to run out of stack.
const DEEPEST: usize = 16;

/// Blocks that stand at the top of a file and nowhere else: one inside another
/// block means that a brace is missing.
const TOP_LEVEL: [&str; 12] = [
    "bfd_instance",
    "garp_group",
    "global_defs",
    "static_ipaddress",
    "static_routes",
    "static_rules",
    "virtual_server",
    "virtual_server_group",
    "vrrp_instance",
    "vrrp_script",
    "vrrp_sync_group",
    "vrrp_track_process",
];

/// Builds the tree, one line after the other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// The statements of the file.
    done: Vec<Statement>,
    /// The blocks that are open, outermost first.
    open: Vec<Block>,
}

/// A block that is open: its statement has these statements so far.
#[derive(Debug)]
struct Block {
    keyword: Word,
    arguments: Vec<Word>,
    brace: usize,
    statements: Vec<Statement>,
}

impl Builder {
    pub(super) fn line(&mut self, line: &Line, mistakes: &mut Vec<Mistake>) {
        let before = mistakes.len();
        let tokens = tokens(line, mistakes);
        let is_statement = |token: &Token| matches!(token, Token::Word(_));
        if mistakes.len() > before && tokens.iter().all(is_statement) {
            // What is left of the line would be wrong in other ways, too.
            return;
        }
        let mut words = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open(at) => {
                    self.statement(std::mem::take(&mut words));
                    self.open(at, mistakes);
                }
                Token::Close(at) => {
                    self.statement(std::mem::take(&mut words));
                    self.close(at, mistakes);
                }
            }
        }
        self.statement(words);
    }

    /// The statements of the whole file.
    pub(super) fn finish(mut self, mistakes: &mut Vec<Mistake>) -> Vec<Statement> {
        for block in &self.open {
            mistakes.push(unclosed(block, "before the end of the file"));
        }
        self.close_all();
        self.done
    }

    fn statements(&mut self) -> &mut Vec<Statement> {
        match self.open.last_mut() {
            Some(block) => &mut block.statements,
            None => &mut self.done,
        }
    }

    fn statement(&mut self, words: Vec<Word>) {
        let mut words = words.into_iter();
        if let Some(keyword) = words.next() {
            let arguments = words.collect();
            let block = None;
            self.statements().push(Statement {
                keyword,
                arguments,
                block,
            });
        }
    }

    /// A brace belongs to the statement before it, which may be a line above.
    fn open(&mut self, brace: usize, mistakes: &mut Vec<Mistake>) {
        let before = self.statements().pop_if(|last| last.block.is_none());
        let Some(Statement {
            keyword, arguments, ..
        }) = before
        else {
            mistakes.push(Mistake::syntax(
                brace,
                "found \"{\" without a keyword, expected one before it: add it, or remove the brace",
            ));
            self.push(Word::at(brace), Vec::new(), brace);
            return;
        };
        if let Some(outermost) = self.open.first()
            && TOP_LEVEL.contains(&keyword.text.as_str())
        {
            let before = format!("before {}", keyword.text);
            mistakes.push(unclosed(outermost, &before));
            self.close_all();
        }
        if self.open.len() == DEEPEST {
            mistakes.push(Mistake::syntax(
                brace,
                format!("found a block more than {DEEPEST} deep, expected fewer: add the \"}}\" that is missing"),
            ));
            self.close_all();
        }
        self.push(keyword, arguments, brace);
    }

    fn push(&mut self, keyword: Word, arguments: Vec<Word>, brace: usize) {
        self.open.push(Block {
            keyword,
            arguments,
            brace,
            statements: Vec::new(),
        });
    }

    fn close(&mut self, brace: usize, mistakes: &mut Vec<Mistake>) {
        if !self.close_one() {
            mistakes.push(Mistake::syntax(
                brace,
                "found \"}\" without a block that is open, expected a keyword: remove it, or look for a \"{\" that is missing above",
            ));
        }
    }

    fn close_one(&mut self) -> bool {
        let Some(block) = self.open.pop() else {
            return false;
        };
        // The brace had no keyword: it is reported, and what it holds is not used.
        if !block.keyword.text.is_empty() {
            self.statements().push(Statement {
                keyword: block.keyword,
                arguments: block.arguments,
                block: Some(block.statements),
            });
        }
        true
    }

    fn close_all(&mut self) {
        while self.close_one() {}
    }
}

fn unclosed(block: &Block, expected: &str) -> Mistake {
    let keyword = &block.keyword.text;
    Mistake::syntax(
        block.brace,
        format!("found the \"{{\" of {keyword} without its \"}}\", expected it {expected}: add it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(statements: &[Statement]) -> String {
        let one = |statement: &Statement| {
            let mut words = vec![statement.keyword.text.clone()];
            words.extend(statement.arguments.iter().map(|word| word.text.clone()));
            let block = statement.block.as_deref();
            let block = block.map(|inner| format!(" {{{}}}", shown(inner)));
            words.join(" ") + &block.unwrap_or_default()
        };
        statements.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn built(text: &str) -> (String, usize) {
        let mut builder = Builder::default();
        let mut mistakes = Vec::new();
        let mut at = 0;
        for line in text.split('\n') {
            builder.line(&Line::written(line, at), &mut mistakes);
            at += line.len() + 1;
        }
        let statements = builder.finish(&mut mistakes);
        (shown(&statements), mistakes.len())
    }

    #[test]
    fn braces_stand_where_they_like() {
        let cases = [
            ("a b {\nc d\n}", "a b {c d}"),
            ("a b\n{\nc d\n}\ne", "a b {c d}; e"),
            ("a{\nb{ c d }\n}", "a {b {c d}}"),
            ("a { b 1\nc 2 }\nd", "a {b 1; c 2}; d"),
            ("a {\n} b", "a {}; b"),
        ];
        for (text, expected) in cases {
            assert_eq!(built(text), (expected.to_owned(), 0), "{text}");
        }
    }

    #[test]
    fn braces_that_do_not_match() {
        assert_eq!(built("a {\nb"), ("a {b}".to_owned(), 1));
        assert_eq!(built("a\n}\nb"), ("a; b".to_owned(), 1));
        assert_eq!(built("{\nb\n}\nc"), ("c".to_owned(), 1));
        assert_eq!(
            built("vrrp_instance A {\nb\nvirtual_server {\nc\n}\nd"),
            ("vrrp_instance A {b}; virtual_server {c}; d".to_owned(), 1),
            "found where the next block begins"
        );
        assert_eq!(built(&"a {\n".repeat(40)).1, 2 + 8, "bounded");
    }
}
