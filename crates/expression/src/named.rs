//! What an expression names.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use std::collections::BTreeSet;

/// Types, which are named like variables; a variable of that name goes before.
pub(crate) const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "string", "type", "uint"];

/// What an expression names.
#[derive(Default)]
pub(crate) struct Named<'a> {
    /// Variables, but for those that its own loops bind.
    pub(crate) names: BTreeSet<&'a str>,
    /// Loops inside one another.
    pub(crate) loops_deep: usize,
}

impl<'a> Named<'a> {
    pub(crate) fn of(expression: &'a IdedExpr) -> Self {
        let mut named = Self::default();
        named.walk(expression, &mut Vec::new(), 0);
        named
    }

    /// `bound`: what the loops around it bind, so many of them being `deep`.
    fn walk(&mut self, expression: &'a IdedExpr, bound: &mut Vec<&'a str>, deep: usize) {
        match &expression.expr {
            Expr::Ident(name) if bound.contains(&name.as_str()) => {}
            Expr::Ident(name) => drop(self.names.insert(name)),
            Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).for_each(|part| {
                self.walk(part, bound, deep);
            }),
            Expr::Comprehension(each) => {
                self.loops_deep = self.loops_deep.max(deep + 1);
                self.walk(&each.iter_range, bound, deep);
                let before = bound.len();
                bound.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
                bound.extend(each.iter_var2.as_deref());
                for part in [&each.accu_init, &each.loop_cond, &each.loop_step, &each.result] {
                    self.walk(part, bound, deep + 1);
                }
                bound.truncate(before);
            }
            Expr::List(list) => list.elements.iter().for_each(|part| self.walk(part, bound, deep)),
            Expr::Select(select) => self.walk(&select.operand, bound, deep),
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr), bound, deep),
            Expr::Struct(of) => self.entries(of.entries.iter().map(|entry| &entry.expr), bound, deep),
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'a EntryExpr>, bound: &mut Vec<&'a str>, deep: usize) {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.walk(&field.value, bound, deep),
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, bound, deep);
                    self.walk(&entry.value, bound, deep);
                }
            }
        }
    }
}
