//! Usage out of what a program shows at its end, by the regular expression of its entry.

use rust_decimal::Decimal;
use serde_json::json;

use super::figures;
use crate::config::agent_spec::{UsageFormat, UsageSpec};
use crate::domain::usage::{Cost, TokenCounts, UsageReport, UsageSource};

/// The last match in a text; `None`: the entry has no pattern, or it does not match.
pub(crate) fn report(spec: &UsageSpec, text: &str) -> Option<UsageReport> {
    if spec.format != UsageFormat::Regex {
        return None;
    }
    // The catalogue has checked that it compiles.
    let pattern = regex::Regex::new(spec.pattern.as_deref()?).ok()?;
    let found = pattern.captures_iter(text).last()?;
    let group = |name: &str| found.name(name).map(|found| found.as_str());
    let count = |name: &str| digits(group(name)?).parse::<i64>().ok();
    let tokens = TokenCounts {
        input: count("input"),
        output: count("output"),
        cache_read: count("cached"),
        cache_write: None,
        reasoning: count("reasoning"),
    };
    let cost = group("cost").and_then(|cost| cost.replace(',', "").parse::<Decimal>().ok());
    Some(UsageReport {
        source: UsageSource::Reported,
        tokens: figures::apart(spec, tokens),
        cost: cost.map(|amount| Cost {
            amount,
            currency: "USD".to_owned(),
        }),
        context: None,
        model: None,
        raw: vec![json!(found.get(0).map(|all| all.as_str()))],
    })
}

/// `1,600` and `1 600` are numbers for people.
fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_real_program_is_read() {
        // As codex 0.169.0 prints it when its terminal interface ends.
        let text = "Token usage: total=884 input=800 (+ 1,600 cached) output=84 (reasoning 14)";
        let pattern = r"input=(?<input>[\d,]+)(?: \(\+ (?<cached>[\d,]+) cached\))? output=(?<output>[\d,]+)(?: \(reasoning (?<reasoning>[\d,]+)\))?";
        let spec = UsageSpec {
            format: UsageFormat::Regex,
            pattern: Some(pattern.to_owned()),
            output_includes_reasoning: true,
            ..UsageSpec::default()
        };
        let tokens = report(&spec, text).unwrap().tokens;
        assert_eq!((tokens.input, tokens.cache_read), (Some(800), Some(1_600)));
        assert_eq!((tokens.output, tokens.reasoning), (Some(70), Some(14)));
        assert_eq!(report(&spec, "nothing"), None);
    }
}
