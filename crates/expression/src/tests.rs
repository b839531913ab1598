use super::*;

const VARIABLES: &[Variable] = &[
    Variable { name: "modalities", kind: Kind::Texts, meaning: "" },
    Variable { name: "days", kind: Kind::Number, meaning: "" },
    Variable { name: "sex", kind: Kind::Text, meaning: "" },
    Variable { name: "bytes", kind: Kind::Number, meaning: "" },
];

fn compiled(text: &str) -> Result<Expression, ExpressionError> {
    Expression::compile(text, VARIABLES)
}

fn value(variable: &Variable) -> Value {
    match variable.name {
        "modalities" => Value::Texts(vec!["CT".into(), "SR".into()]),
        "days" => Value::Number(40),
        "bytes" => Value::Number(7),
        _ => Value::Unknown,
    }
}

fn holds(text: &str) -> Result<bool, ExpressionError> {
    compiled(text).expect("usable").holds(value)
}

#[test]
fn what_is_known_decides() {
    assert_eq!(holds("'CT' in modalities && days > 30"), Ok(true));
    assert_eq!(holds("modalities.exists(m, m == 'MR') || days > 50"), Ok(false));
    assert_eq!(holds("bytes == 7 && type(days) == int"), Ok(true), "a variable goes before a type of its name");
    assert_eq!(holds("modalities.all(m, m in ['CT', 'SR']) && size(modalities) == 2"), Ok(true));
}

#[test]
fn what_is_not_known_is_neither_true_nor_false_whatever_it_is_compared_with() {
    for text in ["sex == 'M'", "sex != 'M'", "!(sex == 'M')", "sex == 'M' || days > 50", "sex != 'M' && days > 30"] {
        assert_eq!(holds(text), Err(ExpressionError::Undecided), "{text}");
    }
    // The rest may decide.
    assert_eq!(holds("sex == 'M' || days > 30"), Ok(true));
    assert_eq!(holds("days > 50 && sex == 'M'"), Ok(false));
}

#[test]
fn what_can_not_be_used_is_refused_before_anything_depends_on_it() {
    let long = format!("days > 1 || sex == '{}'", "x".repeat(TEXT_BYTES_MAX));
    let deep = format!("{}days > 1{}", "(".repeat(2000), ")".repeat(2000));
    let loops = "modalities.all(a, modalities.all(b, modalities.all(c, a == b && b == c)))";
    for text in [
        "days >",
        "days",
        "days > 'x'",
        "days > 1 && color == 'red'",
        "false && color == 'red'",
        "",
        &long,
        &deep,
        loops,
    ] {
        assert!(matches!(compiled(text).err(), Some(ExpressionError::Unusable(_))), "{text}");
    }
    let message = compiled("false && color == 'red'").err().expect("refused").to_string();
    assert_eq!(message, "expression: there is no color; there are modalities, days, sex, bytes");
}

#[test]
fn an_expression_says_what_it_needs() {
    let expression = compiled("modalities.exists(days, days == 'CT') && string(1) == '1'").expect("usable");
    assert!(expression.uses("modalities") && !expression.uses("sex") && !expression.uses("days"));
    assert_eq!(expression.used().len(), 1);
}
