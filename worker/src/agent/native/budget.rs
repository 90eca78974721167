//! What a task may use up, and what it has.

use rust_decimal::Decimal;

use crate::agent::conversation::{Estimate, Spent};
use crate::config::native_spec::Budgets;
use crate::domain::usage::{Price, TokenCounts};

/// Why a turn ends although the model has more to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// `max-steps`, `token-budget` or `cost-budget`.
    pub(crate) reason: &'static str,
    /// In words, with what to do about it.
    pub(crate) message: String,
}

/// The budgets of a task and what was used of them, earlier attempts counted.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    budgets: Budgets,
    price: Option<Price>,
    spent: Spent,
}

/// The smaller one of what the entry and what the task says; nothing and zero: no budget.
fn narrower<T: Copy + Ord + Default>(one: Option<T>, other: Option<T>) -> Option<T> {
    let real = |budget: Option<T>| budget.filter(|most| *most > T::default());
    match (real(one), real(other)) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Ledger {
    /// Of an entry and a task.
    pub(crate) fn new(entry: &Budgets, task: &Budgets, price: Option<Price>, spent: Spent) -> Self {
        let budgets = Budgets {
            max_steps: narrower(entry.max_steps, task.max_steps),
            max_tokens: narrower(entry.max_tokens, task.max_tokens),
            max_cost: narrower(entry.max_cost, task.max_cost),
        };
        Self {
            budgets,
            price,
            spent,
        }
    }

    /// A budget of money cannot be kept without a price.
    pub(crate) fn lacks_price(&self) -> bool {
        self.budgets.max_cost.is_some() && self.price.is_none()
    }

    /// Count a request. What the provider does not say is estimated, for the budgets alone: one that
    /// counts nothing would hold nothing. What was taken for it, where nobody knows.
    pub(crate) fn count(
        &mut self,
        tokens: Option<&TokenCounts>,
        estimate: (i64, i64),
    ) -> Option<Estimate> {
        let estimated = TokenCounts {
            input: Some(estimate.0),
            output: Some(estimate.1),
            ..TokenCounts::default()
        };
        let known = tokens.filter(|known| known.input.is_some() && known.output.is_some());
        let total = known.unwrap_or(&estimated).total().unwrap_or(0);
        let price = self.price.as_ref();
        let cost = price.and_then(|price| price.cost_of(known.unwrap_or(&estimated)));
        let cost = cost.map_or(Decimal::ZERO, |cost| cost.amount);
        self.spent.steps = self.spent.steps.saturating_add(1);
        self.spent.tokens = self.spent.tokens.saturating_add(total);
        self.spent.cost += cost;
        known.is_none().then_some(Estimate {
            tokens: total,
            cost,
        })
    }

    /// Whether the next request may be made. It sends at least `context` tokens again, so that what
    /// cannot stay within the budget is not begun.
    pub(crate) fn check(&self, context: i64) -> Result<(), Exhausted> {
        let Budgets {
            max_steps,
            max_tokens,
            max_cost,
        } = &self.budgets;
        let Spent {
            steps,
            tokens,
            cost,
        } = &self.spent;
        if let Some(most) = max_steps
            && steps >= most
        {
            return Err(exhausted("max-steps", "steps", steps, most, "max_steps"));
        }
        if let Some(most) = max_tokens
            && tokens.saturating_add(context) >= *most
        {
            return Err(exhausted(
                "token-budget",
                "tokens",
                tokens,
                most,
                "max_tokens",
            ));
        }
        if let Some(most) = max_cost
            && *cost + self.least_cost(context) >= *most
        {
            let price = self.price.as_ref();
            let unit = price.map_or("", |price| price.currency.as_str());
            return Err(exhausted("cost-budget", unit, cost, most, "max_cost"));
        }
        Ok(())
    }

    /// What sending the conversation again costs at least.
    fn least_cost(&self, context: i64) -> Decimal {
        let Some(price) = &self.price else {
            return Decimal::ZERO;
        };
        let least = price.cache_read.unwrap_or(price.input).min(price.input);
        Decimal::from(context) * least / Decimal::from(1_000_000)
    }

    /// Most tokens that the next answer may have.
    pub(crate) fn output_left(&self, context: i64) -> Option<u32> {
        let most = self.budgets.max_tokens?;
        let left = most
            .saturating_sub(self.spent.tokens)
            .saturating_sub(context);
        u32::try_from(left.max(1)).ok()
    }
}

fn exhausted(
    reason: &'static str,
    unit: &str,
    spent: &impl ToString,
    most: &impl ToString,
    key: &str,
) -> Exhausted {
    let message = format!(
        "the budget of {} {unit} is used up ({} so far, earlier attempts counted, and the next request would go beyond): what was done is kept as a partial change; submit a follow-up, with a larger {key} if it needs more",
        most.to_string(),
        spent.to_string(),
    );
    Exhausted { reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(budgets: Budgets) -> Ledger {
        let price = Price {
            input: Decimal::from(3),
            output: Decimal::from(15),
            cache_read: None,
            cache_write: None,
            currency: "USD".to_owned(),
        };
        Ledger::new(&Budgets::default(), &budgets, Some(price), Spent::default())
    }

    fn used(input: i64, output: i64) -> TokenCounts {
        TokenCounts {
            input: Some(input),
            output: Some(output),
            ..TokenCounts::default()
        }
    }

    #[test]
    fn each_budget_ends_the_turn_under_its_name() {
        let mut steps = ledger(Budgets {
            max_steps: Some(2),
            ..Budgets::default()
        });
        assert_eq!(steps.check(0), Ok(()));
        steps.count(Some(&used(1, 1)), (0, 0));
        steps.count(Some(&used(1, 1)), (0, 0));
        assert_eq!(steps.check(0).unwrap_err().reason, "max-steps");
        let mut tokens = ledger(Budgets {
            max_tokens: Some(1_000),
            ..Budgets::default()
        });
        tokens.count(Some(&used(300, 100)), (0, 0));
        assert_eq!(tokens.check(500), Ok(()));
        assert_eq!(tokens.output_left(500), Some(100));
        assert_eq!(tokens.check(600).unwrap_err().reason, "token-budget");
        let mut cost = ledger(Budgets {
            max_cost: Some(Decimal::ONE),
            ..Budgets::default()
        });
        cost.count(Some(&used(100_000, 20_000)), (0, 0));
        assert_eq!(cost.check(0), Ok(()), "0.60 spent");
        assert_eq!(cost.check(200_000).unwrap_err().reason, "cost-budget");
    }

    #[test]
    fn the_narrower_budget_holds_and_zero_is_none() {
        let entry = Budgets {
            max_steps: Some(0),
            max_tokens: Some(10),
            max_cost: None,
        };
        let task = Budgets {
            max_steps: None,
            max_tokens: Some(20),
            max_cost: None,
        };
        let ledger = Ledger::new(&entry, &task, None, Spent::default());
        assert_eq!(ledger.budgets.max_steps, None);
        assert_eq!(ledger.budgets.max_tokens, Some(10));
        assert!(!ledger.lacks_price());
    }

    #[test]
    fn a_provider_that_says_nothing_uses_up_a_budget_all_the_same() {
        let mut ledger = ledger(Budgets {
            max_tokens: Some(100),
            ..Budgets::default()
        });
        let counted = ledger.count(None, (90, 20)).unwrap();
        assert!(ledger.check(0).is_err());
        // 90 at 3 and 20 at 15, for a million.
        let cost = Decimal::new(570, 6);
        assert_eq!((counted.tokens, counted.cost), (110, cost));
        assert_eq!(ledger.count(Some(&used(1, 1)), (90, 20)), None);
        let half = TokenCounts {
            input: Some(1),
            ..TokenCounts::default()
        };
        assert!(ledger.count(Some(&half), (90, 20)).is_some());
    }
}
