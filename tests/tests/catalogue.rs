//! The documents name tests: that each of them is there, under that name and at that place, and that
//! `docs/catalogue.md` has every entry. Needs nothing, so it runs with every `cargo test`.
//!
//! A name is written in backticks behind the letter or the path of its place, n `faults::*`: the letters are those that
//! the document itself explains, as in "`net-afxdp/tests/veth` (n)". Further names of the same place follow after
//! commas, and without a module they are of the one before. Whatever stands in a table's column "tests", or looks like
//! a path of modules, has to be such a name, or the path of a file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The entries of the catalogue.
const ENTRIES: u32 = 59;

/// The letter of tests that run on both transports, where a document has it.
const BOTH: char = 'b';

/// Includes the files whose tests run on PCI, too, by their paths.
const ON_PCI: &str = "devices/tests/virtio_net_pci/main.rs";

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A paragraph, or a cell of a table.
struct Block {
    text: String,
    /// Of a column "tests".
    of_tests: bool,
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().replace("\\|", "/");
    let inner = line.trim_start_matches('|').trim_end_matches('|');
    inner
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = vec![];
    let mut paragraph = String::new();
    let mut columns: Vec<String> = vec![];
    for line in text.lines().chain([""]) {
        if !line.starts_with('|') && !line.trim().is_empty() && !line.starts_with("    ") {
            paragraph.push_str(line);
            paragraph.push(' ');
            continue;
        }
        if !paragraph.is_empty() {
            let text = std::mem::take(&mut paragraph);
            let of_tests = false;
            blocks.push(Block { text, of_tests });
        }
        if !line.starts_with('|') {
            columns.clear();
            continue;
        }
        let cells = cells(line);
        if columns.is_empty() {
            columns = cells;
            continue;
        }
        for (at, text) in cells.into_iter().enumerate() {
            let of_tests = columns.get(at).is_some_and(|column| column == "tests");
            blocks.push(Block { text, of_tests });
        }
    }
    blocks
}

/// What stands in backticks, and what before it.
fn codes(text: &str) -> Vec<(&str, &str)> {
    let mut parts = text.split('`');
    let mut codes = vec![];
    while let (Some(gap), Some(code)) = (parts.next(), parts.next()) {
        codes.push((gap, code));
    }
    codes
}

/// The letter at the end of what stands before a name.
fn letter(gap: &str) -> Option<char> {
    let mut back = gap.strip_suffix(' ')?.trim_end().chars().rev();
    let letter = back.next().filter(char::is_ascii_lowercase)?;
    let before = back.next();
    before
        .is_none_or(|before| " ;|(".contains(before))
        .then_some(letter)
}

/// The places that the document gives letters to.
fn letters(blocks: &[Block]) -> BTreeMap<char, String> {
    let mut letters = BTreeMap::new();
    for block in blocks {
        let mut parts = block.text.split('`');
        while let (Some(_), Some(place)) = (parts.next(), parts.next()) {
            let after = parts.clone().next().unwrap_or_default();
            let mut mark = after.strip_prefix(" (").unwrap_or_default().chars();
            if let (Some(letter), Some(')' | ';')) = (mark.next(), mark.next()) {
                letters.insert(letter, place.to_owned());
            }
        }
    }
    letters
}

/// The functions with `#[test]` of a file; none if there is no such file.
fn tests_of(file: &Path) -> Vec<String> {
    let mut names = vec![];
    let mut is_test = false;
    for line in fs::read_to_string(file).unwrap_or_default().lines() {
        let line = line.trim();
        if line == "#[test]" {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            names.push(name.to_owned());
            is_test = false;
        }
    }
    names
}

/// Where the tests of a module may be.
fn files(place: &str, modules: &[&str]) -> Vec<PathBuf> {
    let base = modules
        .iter()
        .fold(top().join(place), |path, m| path.join(m));
    let mut files = vec![base.join("mod.rs"), base.join("tests.rs")];
    if modules.is_empty() {
        files.push(base.join("main.rs"));
    } else {
        files.push(base.with_extension("rs"));
    }
    files
}

fn is_there(place: &str, modules: &[&str], name: &str) -> bool {
    let files = files(place, modules);
    let mut tests = files.iter().flat_map(|file| tests_of(file));
    tests.any(|test| name == "*" || name == test)
}

/// Follows the names of a block: what their place is, and their module.
#[derive(Default)]
struct Cursor<'a> {
    letter: Option<char>,
    place: Option<&'a str>,
    modules: Vec<&'a str>,
    /// The directory that was just named, for names after a colon.
    directory: Option<&'a str>,
}

impl<'a> Cursor<'a> {
    /// Past the words before a name.
    fn pass(&mut self, gap: &str, letters: &'a BTreeMap<char, String>) {
        let directory = self.directory.take();
        let known = letter(gap).and_then(|letter| letters.get_key_value(&letter));
        if let Some((&letter, place)) = known {
            (self.letter, self.place) = (Some(letter), Some(place.as_str()));
            self.modules.clear();
        } else if gap.trim() == ":" && directory.is_some() {
            (self.letter, self.place) = (None, directory);
            self.modules.clear();
        } else if ![",", "and", ", and"].contains(&gap.trim()) {
            self.place = None;
        }
    }

    /// What is wrong with a name, if anything is.
    fn judge(&mut self, code: &'a str, of_tests: bool) -> Option<String> {
        let is_path = ["devices/", "net-afxdp/", "tests/", "vmm/"];
        if is_path.iter().any(|top| code.starts_with(top)) {
            self.directory = Some(code);
            return (!top().join(code).exists()).then(|| format!("no such file: {code}"));
        }
        let of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:*".contains(c);
        let looks_like_one = code.contains("::") && code.chars().all(of_names);
        let Some(place) = self.place else {
            return (of_tests || looks_like_one).then(|| format!("of no place: {code}"));
        };
        let mut modules: Vec<_> = code.split("::").collect();
        let name = modules.pop().unwrap_or_default();
        if modules.is_empty() {
            // Of the module before, or a module itself.
            let found = is_there(place, &self.modules, name) || is_there(place, &[name], "*");
            return (!found)
                .then(|| format!("no such test: {code} in {place}, {:?}", self.modules));
        }
        self.modules = modules;
        if !is_there(place, &self.modules, name) {
            return Some(format!("no such test: {code} in {place}"));
        }
        self.judge_transport(code)
    }

    /// Whether it runs on PCI as often as its letter says.
    fn judge_transport(&self, code: &str) -> Option<String> {
        let module = self.modules.first()?;
        let included = read(ON_PCI).contains(&format!("\"../virtio_net/{module}.rs\""));
        (self.letter == Some(BOTH) && !included).then(|| format!("not on both transports: {code}"))
    }
}

/// All that is wrong with the names of a document, and how many names there are.
fn wrong_names(text: &str) -> (Vec<String>, usize) {
    let blocks = blocks(text);
    let letters = letters(&blocks);
    let (mut wrong, mut count) = (vec![], 0);
    for block in &blocks {
        let mut cursor = Cursor::default();
        for (gap, code) in codes(&block.text) {
            cursor.pass(gap, &letters);
            wrong.extend(cursor.judge(code, block.of_tests));
            count += usize::from(cursor.place.is_some());
        }
    }
    (wrong, count)
}

/// The number and the tests of each entry.
fn entries(text: &str) -> Vec<(u32, String)> {
    let rows = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let entry = |row: Vec<String>| Some((row.first()?.parse().ok()?, row.get(3)?.clone()));
    rows.filter_map(entry).collect()
}

#[test]
fn every_entry_of_the_catalogue_is_there_with_its_tests() {
    let entries = entries(&read("docs/catalogue.md"));
    let numbers: Vec<_> = entries.iter().map(|&(number, _)| number).collect();
    assert_eq!(numbers, (1..=ENTRIES).collect::<Vec<_>>());
    for (number, tests) in entries {
        let said = tests.contains("::") || tests.starts_with("none yet");
        assert!(said, "{number} has no test and does not say so: {tests}");
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    for (document, least) in [
        ("docs/catalogue.md", 150),
        ("docs/netdev.md", 80),
        ("docs/console.md", 20),
    ] {
        let (wrong, count) = wrong_names(&read(document));
        assert!(wrong.is_empty(), "{document}:\n{}", wrong.join("\n"));
        assert!(count >= least, "{document}: only {count} names were found");
    }
}

/// The check itself: it finds what is wrong, and nothing else.
#[test]
fn wrong_names_are_noticed() {
    let head = "`devices/tests/virtio_net` (d), `devices/tests/virtio_net` (b)\n\n| what | tests |\n|---|---|\n";
    for (cell, expected) in [
        (
            "d `rings::loops_stop_the_queue`, `lengths_are_checked`; b `life::*`",
            None,
        ),
        (
            "`devices/src/virtio/queue`: `tests::rewinding_puts_chains_back`, and on",
            None,
        ),
        ("as above; `devices/tests/virtio_net/rate.rs`", None),
        ("d `rings::no_such_test`", Some("no such test")),
        (
            "d `rings::loops_stop_the_queue`, `no_such_test`",
            Some("no such test"),
        ),
        ("d `no_such_file::*`", Some("no such test")),
        // A function, but no test.
        ("d `rings::flood`", Some("no such test")),
        (
            "d `rings::*` (slow), `lengths_are_checked`",
            Some("of no place"),
        ),
        ("e `rings::*`", Some("of no place")),
        ("b `rate::*`", Some("not on both transports")),
        ("`devices/tests/no_such_file.rs`", Some("no such file")),
    ] {
        let (wrong, _) = wrong_names(&format!("{head}| it | {cell} |\n"));
        let found = wrong.first().map(|wrong| wrong.split(':').next().unwrap());
        assert_eq!(found, expected, "{cell}: {wrong:?}");
    }
    let (wrong, _) =
        wrong_names("In words, `rings::loops_stop_the_queue` is one; `a::B` is none.\n");
    assert_eq!(wrong, ["of no place: rings::loops_stop_the_queue"]);
    assert_eq!(
        entries("| 3 | a | b | c | d |\n| x | a | b | c |\n"),
        [(3, "c".to_owned())]
    );
}
