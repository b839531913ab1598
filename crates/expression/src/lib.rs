//! Expressions of the Common Expression Language (CEL) that must hold: which instances are replayed, which studies a policy
//! is about.
//!
//! An expression is compiled once, and refused then if it names what there is not or is no truth value. A variable may have
//! no value in one case; what can't be decided without it is neither true nor false, whatever it is compared with, and the
//! caller is told so. Errors never show the value of a variable, which may be a patient's (I9).
#![forbid(unsafe_code)]

mod named;

use cel::{Context, Env, ExecutionError, Program};
use named::{Named, TYPES};
use std::sync::Arc;

/// Bytes of an expression at most: it is kept in events, and evaluated for every study there is.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Loops (`all`, `exists`, `map`, `filter`) inside one another at most: each goes through a whole list.
const LOOPS_DEEP_MAX: usize = 2;

/// What a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Number,
    /// Texts.
    Texts,
}

/// A variable that expressions may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says, for those who write expressions.
    pub meaning: &'static str,
}

/// What a variable is in one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Texts.
    Texts(Vec<String>),
    /// It has none here.
    Unknown,
}

/// Why an expression can't be used, or has no truth value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is none.
    #[error("expression: {0}")]
    Unusable(String),
    /// What it needs is not known here, or does not go together.
    #[error("expression: it can not be evaluated")]
    Undecided,
}

/// A compiled expression.
pub struct Expression {
    program: Program,
    env: Arc<Env>,
    used: Vec<Variable>,
}

impl Expression {
    /// Compiles an expression over `variables`.
    ///
    /// # Errors
    /// `Unusable`: it is too long, is none, names a variable that there is not, loops too often, or is no truth value.
    pub fn compile(text: &str, variables: &[Variable]) -> Result<Self, ExpressionError> {
        let unusable = |message: String| Err(ExpressionError::Unusable(message));
        if text.len() > TEXT_BYTES_MAX {
            return unusable(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let program = Program::compile(text).map_err(|error| ExpressionError::Unusable(error.to_string()))?;
        let named = Named::of(program.expression());
        if named.loops_deep > LOOPS_DEEP_MAX {
            return unusable(format!("more than {LOOPS_DEEP_MAX} loops are inside one another"));
        }
        // Said now, also of what a trial would not come to.
        let is_known = |name: &&str| TYPES.contains(name) || variables.iter().any(|variable| variable.name == *name);
        if let Some(name) = named.names.iter().find(|name| !is_known(name)) {
            let known: Vec<_> = variables.iter().map(|variable| variable.name).collect();
            return unusable(format!("there is no {name}; there are {}", known.join(", ")));
        }
        let used = variables.iter().filter(|variable| named.names.contains(variable.name)).copied().collect();
        let expression = Self { used, program, env: Arc::new(Env::stdlib()) };
        expression.try_out()?;
        Ok(expression)
    }

    /// The variables that it names.
    pub fn used(&self) -> &[Variable] {
        &self.used
    }

    /// Whether it names a variable.
    pub fn uses(&self, name: &str) -> bool {
        self.used.iter().any(|variable| variable.name == name)
    }

    /// Whether it holds, where `value` says what each variable is that it names.
    ///
    /// # Errors
    /// `Undecided`.
    pub fn holds(&self, mut value: impl FnMut(&Variable) -> Value) -> Result<bool, ExpressionError> {
        let mut context = Context::with_env(self.env.clone());
        for variable in &self.used {
            let name = variable.name;
            match value(variable) {
                Value::Text(text) => context.add_variable_from_value(name, text),
                Value::Number(number) => context.add_variable_from_value(name, number),
                Value::Texts(texts) => context.add_variable_from_value(name, texts),
                // Not there: whatever it is compared with, the outcome is an error, and never true for want of a value.
                Value::Unknown => {}
            }
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(_) | Err(_) => Err(ExpressionError::Undecided),
        }
    }

    /// Finds what is no truth value before anything depends on it.
    fn try_out(&self) -> Result<(), ExpressionError> {
        let mut context = Context::with_env(self.env.clone());
        for Variable { name, kind, .. } in &self.used {
            match kind {
                Kind::Text => context.add_variable_from_value(*name, String::new()),
                Kind::Number => context.add_variable_from_value(*name, 0_i64),
                Kind::Texts => context.add_variable_from_value(*name, vec![String::new()]),
            }
        }
        let message = match self.program.execute(&context) {
            Ok(cel::Value::Bool(_)) => return Ok(()),
            Ok(_) => "it is neither true nor false".to_owned(),
            Err(ExecutionError::NoSuchOverload(overload)) => {
                format!("{} does not go with what it is applied to", overload.function())
            }
            // Other errors may show the value of a variable.
            Err(_) => "it can not be evaluated".to_owned(),
        };
        Err(ExpressionError::Unusable(message))
    }
}

#[cfg(test)]
mod tests;
