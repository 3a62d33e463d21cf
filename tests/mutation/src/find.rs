//! Where in a file the changes of the list are: the operands, arms, bodies and fields that a switch goes around.

use std::collections::HashMap;
use std::ops::Range;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::mutant::{Genre, Mutant, Place};

/// A piece of source with what can be chosen instead.
pub(crate) struct Site {
    pub(crate) bytes: Range<usize>,
    pub(crate) kind: SiteKind,
    pub(crate) choices: Vec<Choice>,
}

/// A mutant of a site, by its number, and what it puts there.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) mutant: usize,
    pub(crate) replacement: String,
}

/// What a site is, and the pieces of source that its text is made of.
#[derive(Clone)]
pub(crate) enum SiteKind {
    /// What the braces of a function hold.
    Body,
    Binary {
        left: Range<usize>,
        operator: String,
        right: Range<usize>,
    },
    Unary {
        operand: Range<usize>,
    },
    Guard,
    /// A `match` with arms that can go.
    Match,
    /// Behind the pattern of an arm without a guard.
    Arm,
    /// The guard of an arm that can go.
    GuardedArm,
    /// The value of a field, and the base that has another.
    Field {
        name: String,
        base: Range<usize>,
        is_short: bool,
    },
}

/// The sites of some mutants in a file, by where they begin (of those that begin at one place, the longest first), and the mutants
/// that no switch can choose.
///
/// # Errors
/// When the file is no Rust, or a mutant lies outside of it.
pub(crate) fn find(source: &str, mutants: &[(usize, &Mutant)]) -> Result<(Vec<Site>, Vec<usize>), String> {
    let file = syn::parse_file(source).map_err(|error| error.to_string())?;
    let lines = Lines::of(source);
    let mut at: HashMap<(usize, Spot), Vec<Choice>> = HashMap::new();
    for &(number, mutant) in mutants {
        let start = lines
            .offset(mutant.span.start)
            .ok_or_else(|| format!("{} lies outside of its file", mutant.name))?;
        let choice = Choice { mutant: number, replacement: mutant.replacement.clone() };
        at.entry((start, Spot::of(mutant.genre))).or_default().push(choice);
    }
    let mut finder = Finder { source, at, sites: Vec::new(), left_out: Vec::new(), constant: 0 };
    finder.visit_file(&file);
    let Finder { at, mut sites, mut left_out, .. } = finder;
    left_out.extend(at.into_values().flatten().map(|choice| choice.mutant));
    left_out.sort_unstable();
    sites.sort_by_key(|site| (site.bytes.start, std::cmp::Reverse(site.bytes.end)));
    Ok((sites, left_out))
}

/// What a site is looked up by: two of different kinds may begin at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Spot {
    Body,
    Operator,
    Guard,
    Arm,
    Field,
}

impl Spot {
    fn of(genre: Genre) -> Self {
        match genre {
            Genre::FnValue => Self::Body,
            Genre::BinaryOperator | Genre::UnaryOperator => Self::Operator,
            Genre::MatchArmGuard => Self::Guard,
            Genre::MatchArm => Self::Arm,
            Genre::StructField => Self::Field,
        }
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(source: &'a str) -> Self {
        let starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, starts }
    }

    fn offset(&self, place: Place) -> Option<usize> {
        let start = *self.starts.get(place.line.checked_sub(1)?)?;
        let line = self.source.get(start..)?;
        Some(start + line.char_indices().nth(place.column.checked_sub(1)?)?.0)
    }
}

/// Looks for the pieces of source that the list speaks of.
struct Finder<'a> {
    source: &'a str,
    at: HashMap<(usize, Spot), Vec<Choice>>,
    sites: Vec<Site>,
    left_out: Vec<usize>,
    /// How many constants lie around this place.
    constant: usize,
}

impl Finder<'_> {
    fn site(&mut self, key: (usize, Spot), bytes: Range<usize>, kind: SiteKind) {
        let Some(choices) = self.at.remove(&key) else { return };
        if self.constant > 0 {
            self.left_out.extend(choices.iter().map(|choice| choice.mutant));
        } else {
            self.sites.push(Site { bytes, kind, choices });
        }
    }

    fn leave_out(&mut self, key: (usize, Spot)) {
        let choices = self.at.remove(&key).into_iter().flatten();
        self.left_out.extend(choices.map(|choice| choice.mutant));
    }

    fn in_constant(&mut self, visit: impl FnOnce(&mut Self)) {
        self.constant += 1;
        visit(self);
        self.constant -= 1;
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if let (true, Some(first)) = (is_opaque(&signature.output), block.stmts.first()) {
            self.leave_out((first.span().byte_range().start, Spot::Body));
        }
        if signature.constness.is_some() {
            self.in_constant(|finder| finder.block(block));
        } else {
            self.block(block);
        }
    }

    fn block(&mut self, block: &syn::Block) {
        let braces = block.brace_token.span;
        let inner = braces.open().byte_range().end..braces.close().byte_range().start;
        if let Some(first) = block.stmts.first() {
            self.site((first.span().byte_range().start, Spot::Body), inner, SiteKind::Body);
        }
        visit::visit_block(self, block);
    }
}

/// True for `impl Trait`: a mutant may return another type than the body does, and one function cannot return both.
fn is_opaque(output: &syn::ReturnType) -> bool {
    struct Opaque(bool);
    impl Visit<'_> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    opaque.visit_return_type(output);
    opaque.0
}

/// True if `let` is among the conditions that `&&` connects: nothing else may connect them.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.in_constant(|finder| visit::visit_item_const(finder, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.in_constant(|finder| visit::visit_impl_item_const(finder, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.in_constant(|finder| visit::visit_item_static(finder, item));
    }

    /// The length of an array is a constant.
    fn visit_type(&mut self, item: &'ast syn::Type) {
        self.in_constant(|finder| visit::visit_type(finder, item));
    }

    fn visit_expr_const(&mut self, item: &'ast syn::ExprConst) {
        self.in_constant(|finder| visit::visit_expr_const(finder, item));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let operator = binary.op.span().byte_range();
        let key = (operator.start, Spot::Operator);
        if has_let(&binary.left) || has_let(&binary.right) {
            self.leave_out(key);
        } else {
            let kind = SiteKind::Binary {
                left: binary.left.span().byte_range(),
                operator: self.source[operator].to_owned(),
                right: binary.right.span().byte_range(),
            };
            self.site(key, binary.span().byte_range(), kind);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let start = unary.op.span().byte_range().start;
        let kind = SiteKind::Unary { operand: unary.expr.span().byte_range() };
        self.site((start, Spot::Operator), unary.span().byte_range(), kind);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        let arms =
            item.arms.iter().filter_map(|arm| self.at.get(&(arm.pat.span().byte_range().start, Spot::Arm)));
        let choices: Vec<_> = arms.flatten().cloned().collect();
        if !choices.is_empty() {
            self.sites.push(Site { bytes: item.span().byte_range(), kind: SiteKind::Match, choices });
        }
        visit::visit_expr_match(self, item);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let pattern = arm.pat.span().byte_range();
        let key = (pattern.start, Spot::Arm);
        if let syn::Pat::Guard(syn::PatGuard { guard, .. }) = &arm.pat {
            let bytes = guard.span().byte_range();
            if has_let(guard) {
                self.leave_out(key);
                self.leave_out((bytes.start, Spot::Guard));
            } else {
                self.site(key, bytes.clone(), SiteKind::GuardedArm);
                self.site((bytes.start, Spot::Guard), bytes, SiteKind::Guard);
            }
        } else {
            self.site(key, pattern.end..pattern.end, SiteKind::Arm);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        if let Some(base) = &literal.rest {
            for field in &literal.fields {
                let bytes = field.span().byte_range();
                let kind = SiteKind::Field {
                    name: self.source[field.member.span().byte_range()].to_owned(),
                    base: base.span().byte_range(),
                    is_short: field.colon_token.is_none(),
                };
                self.site((bytes.start, Spot::Field), field.expr.span().byte_range(), kind);
            }
        }
        visit::visit_expr_struct(self, literal);
    }
}
