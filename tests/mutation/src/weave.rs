//! Writes all mutants of a file into it, each behind a switch: `crate::woven::on(17)` is true while mutant 17 is chosen.
//!
//! A whole tree is compiled once, and thousands of mutants are judged by it: cargo-mutants compiles one build for each.

use std::ops::Range;

use crate::find::{self, Site, SiteKind};
use crate::mutant::Mutant;

/// A file with its mutants in it.
pub(crate) struct Woven {
    pub(crate) text: String,
    /// What belongs to a mutant: the code that runs while it is chosen, and around it the code that chooses.
    pub(crate) marks: Vec<Mark>,
    /// Mutants that no switch can choose: where only constants are allowed, among the conditions of an `if let`, and
    /// where a function returns `impl Trait`.
    pub(crate) left_out: Vec<usize>,
}

/// A piece of woven text, and the mutants it is there for.
pub(crate) struct Mark {
    pub(crate) bytes: Range<usize>,
    pub(crate) mutants: Vec<usize>,
    pub(crate) part: Part,
}

/// What a mark lies around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What runs while the mutant is chosen, or chooses it.
    Choice,
    /// A function whose body can become a value: `return` may not fit its type where the value would.
    Function,
    /// A `match` some of whose arms can go: with a condition, they no longer count as cases that are covered.
    Match,
}

/// Weaves the mutants of one file into its text.
///
/// # Errors
/// When the file is no Rust, or a mutant is not where the list says.
pub(crate) fn weave(source: &str, mutants: &[(usize, &Mutant)]) -> Result<Woven, String> {
    let (sites, left_out) = find::find(source, mutants)?;
    let mut writer = Writer { source, sites: &sites, text: String::new(), marks: Vec::new() };
    writer.write(0..source.len(), None);
    Ok(Woven { text: writer.text, marks: writer.marks, left_out })
}

/// Writes a file anew.
struct Writer<'a> {
    source: &'a str,
    /// By where they begin; of those that begin at one place, the longest comes first.
    sites: &'a [Site],
    text: String,
    marks: Vec<Mark>,
}

impl Writer<'_> {
    /// Writes a piece of the source with the sites that lie in it, but for those up to `within`, which are being written.
    fn write(&mut self, bytes: Range<usize>, within: Option<usize>) {
        let sites = self.sites;
        let mut at = bytes.start;
        for (number, site) in sites.iter().enumerate().skip(within.map_or(0, |within| within + 1)) {
            if site.bytes.start > bytes.end {
                break;
            }
            if site.bytes.start < at || site.bytes.end > bytes.end {
                continue;
            }
            self.text.push_str(&self.source[at..site.bytes.start]);
            let from = self.text.len();
            self.site(number, site);
            let mutants = site.choices.iter().map(|choice| choice.mutant).collect();
            let part = match site.kind {
                SiteKind::Body => Part::Function,
                SiteKind::Match => Part::Match,
                _ => Part::Choice,
            };
            self.marks.push(Mark { bytes: from..self.text.len(), mutants, part });
            at = site.bytes.end;
        }
        self.text.push_str(&self.source[at..bytes.end]);
    }

    fn mark(&mut self, from: usize, mutant: usize) {
        self.marks.push(Mark { bytes: from..self.text.len(), mutants: vec![mutant], part: Part::Choice });
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A piece in parentheses.
    fn piece(&mut self, bytes: Range<usize>, site: usize) {
        self.push("(");
        self.write(bytes, Some(site));
        self.push(")");
    }

    fn site(&mut self, number: usize, site: &Site) {
        match site.kind.clone() {
            SiteKind::Body => self.body(number, site),
            SiteKind::Binary { left, operator, right } => self.binary(number, site, left, &operator, right),
            SiteKind::Unary { operand } => {
                let operator = self.source[site.bytes.start..operand.start].to_owned();
                self.push("(");
                for choice in &site.choices {
                    self.push(&format!("if {} {{ ", on(choice.mutant)));
                    let from = self.text.len();
                    self.piece(operand.clone(), number);
                    self.mark(from, choice.mutant);
                    self.push(" } else ");
                }
                self.push(&format!("{{ {operator}"));
                self.piece(operand, number);
                self.push(" })");
            }
            SiteKind::Guard => {
                let with = |value| site.choices.iter().filter(move |choice| choice.replacement == value);
                self.push("(");
                with("true").for_each(|choice| self.push(&format!("{} || ", on(choice.mutant))));
                with("false").for_each(|choice| self.push(&format!("!{} && ", on(choice.mutant))));
                self.piece(site.bytes.clone(), number);
                self.push(")");
            }
            SiteKind::Match => self.write(site.bytes.clone(), Some(number)),
            SiteKind::Arm => {
                site.choices.iter().for_each(|choice| self.push(&format!(" if !{} ", on(choice.mutant))))
            }
            SiteKind::GuardedArm => {
                site.choices.iter().for_each(|choice| self.push(&format!("!{} && ", on(choice.mutant))));
                self.piece(site.bytes.clone(), number);
            }
            SiteKind::Field { name, base, is_short } => {
                if is_short {
                    self.push(&format!("{name}: "));
                }
                for choice in &site.choices {
                    self.push(&format!("if {} {{ ", on(choice.mutant)));
                    let from = self.text.len();
                    self.push(&format!("({}).{name}", &self.source[base.clone()]));
                    self.mark(from, choice.mutant);
                    self.push(" } else ");
                }
                self.push("{ ");
                self.write(site.bytes.clone(), Some(number));
                self.push(" }");
            }
        }
    }

    fn body(&mut self, number: usize, site: &Site) {
        for choice in &site.choices {
            self.push(&format!(" if {} {{ ", on(choice.mutant)));
            let from = self.text.len();
            self.push(&format!("return {};", choice.replacement));
            self.mark(from, choice.mutant);
            self.push(" }");
        }
        self.write(site.bytes.clone(), Some(number));
    }

    fn binary(
        &mut self,
        number: usize,
        site: &Site,
        left: Range<usize>,
        operator: &str,
        right: Range<usize>,
    ) {
        // Without writing the operands twice: chains of conditions are long.
        let swapped = match &site.choices[..] {
            [choice] if operator == "&&" && choice.replacement == "||" => Some((choice, "!=", "")),
            [choice] if operator == "||" && choice.replacement == "&&" => Some((choice, "==", "!")),
            _ => None,
        };
        if let Some((choice, compared, otherwise)) = swapped {
            let switch = on(choice.mutant);
            self.push("(if ");
            self.piece(left, number);
            self.push(&format!(" {compared} {switch} {{ "));
            self.write(right, Some(number));
            self.push(&format!(" }} else {{ {otherwise}{switch} }})"));
            return;
        }
        self.push("(");
        for choice in &site.choices {
            self.push(&format!("if {} {{ ", on(choice.mutant)));
            let from = self.text.len();
            self.piece(left.clone(), number);
            self.push(&format!(" {} ", choice.replacement));
            self.piece(right.clone(), number);
            self.mark(from, choice.mutant);
            self.push(" } else ");
        }
        self.push("{ ");
        self.piece(left, number);
        self.push(&format!(" {operator} "));
        self.piece(right, number);
        self.push(" })");
    }
}

fn on(mutant: usize) -> String {
    format!("crate::woven::on({mutant})")
}
