//! `logs` and `watch`: the stream of a task, printed as it comes.

use std::time::Duration;

use chrono::Utc;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::forms::{clock, thousands};
use super::out::{Out, cut};
use super::story::Story;
use super::tree::StreamArgs;
use super::{CliError, End};
use crate::domain::ids::TaskId;
use crate::ops::stream::{self, TaskEvent, Wait};
use crate::ops::task::{ShowTask, TaskDetail};
use crate::ops::values::TaskRef;
use crate::ops::{Op, OpContext};
use crate::surface::safe_text;

/// How often the status line is drawn again …
const REDRAW: Duration = Duration::from_secs(1);

/// … and how many redraws pass between looks at the task itself, for its phase.
const LOOK_EVERY: u32 = 2;

/// Print the stream.
pub(crate) async fn run(
    context: &OpContext,
    out: &mut Out,
    args: &StreamArgs,
    json: bool,
) -> Result<End, CliError> {
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    let wait = if args.follow {
        Wait::UntilTheEnd
    } else {
        Wait::No
    };
    let mut events = stream::follow(context, TaskId(args.task), args.since_seq, wait, stop).await?;
    let mut screen = Screen::new(out, args, json);
    let mut ticks = tokio::time::interval(REDRAW);
    let mut count = 0_u32;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => screen.event(&event?)?,
                None => break,
            },
            _ = ticks.tick(), if screen.live => {
                if count.is_multiple_of(LOOK_EVERY) {
                    screen.look(context).await;
                }
                count = count.wrapping_add(1);
                screen.draw()?;
            }
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                screen.interrupted()?;
                return Ok(End::Interrupted);
            }
        }
    }
    screen.finish()
}

/// What is on the terminal: the story above, one line of status below.
struct Screen<'a> {
    out: &'a mut Out,
    args: &'a StreamArgs,
    json: bool,
    /// Whether there is a status line.
    live: bool,
    story: Story,
    drawn: bool,
    standing: String,
}

impl<'a> Screen<'a> {
    fn new(out: &'a mut Out, args: &'a StreamArgs, json: bool) -> Self {
        let story = Story::new(out.paint, args.task);
        let live = args.status && out.terminal && !json;
        Self {
            out,
            args,
            json,
            live,
            story,
            drawn: false,
            standing: "pending".to_owned(),
        }
    }

    fn event(&mut self, event: &TaskEvent) -> Result<(), CliError> {
        let text = if self.json {
            let line = serde_json::to_string(event).map_err(|e| CliError::Io(e.into()))?;
            self.story.tell(event);
            format!("{}\n", safe_text::json(&line))
        } else {
            self.story.tell(event)
        };
        if text.is_empty() {
            return Ok(());
        }
        self.erase()?;
        self.out.print(&text)?;
        self.draw()
    }

    /// Look at the task for what the stream does not tell. A failed look changes nothing.
    async fn look(&mut self, context: &OpContext) {
        let show = ShowTask {
            id: TaskRef(TaskId(self.args.task)),
        };
        if let Ok(TaskDetail { task, .. }) = show.run(context).await {
            let detail = task.phase.or(task.waiting_reason);
            let detail = detail.map(|d| format!(" ({})", safe_text::line(&d)));
            self.standing = format!(
                "{}{}",
                safe_text::line(&task.state),
                detail.unwrap_or_default()
            );
        }
    }

    fn draw(&mut self) -> Result<(), CliError> {
        if !self.live {
            return Ok(());
        }
        let mut parts = vec![self.standing.clone()];
        parts.extend(self.story.agent.clone());
        parts.extend(
            self.story
                .tokens
                .map(|t| format!("{} tokens", thousands(t))),
        );
        if let (Some(began), None) = (self.story.began, &self.story.ended) {
            parts.push(clock((Utc::now() - began).num_seconds()));
        }
        let tail = self.story.tail().replace('\t', " ");
        if !tail.is_empty() {
            parts.push(tail);
        }
        let width = self.out.width.unwrap_or(100).saturating_sub(1);
        let status = self.out.paint.dim(&cut(&parts.join(" · "), width));
        self.erase()?;
        self.out.print(&status)?;
        self.drawn = true;
        Ok(())
    }

    fn erase(&mut self) -> Result<(), CliError> {
        if std::mem::take(&mut self.drawn) {
            self.out.print("\r\x1b[2K")?;
        }
        Ok(())
    }

    fn interrupted(&mut self) -> Result<(), CliError> {
        self.erase()?;
        if self.json || !self.args.follow {
            return Ok(());
        }
        let task = self.args.task;
        let rest = self.story.flush();
        self.out.print(&rest)?;
        Ok(self.out.line(&format!(
            "Task {task} goes on. Watch it again: dispatch watch {task}; stop it: dispatch cancel {task}"
        ))?)
    }

    fn finish(mut self) -> Result<End, CliError> {
        self.erase()?;
        if !self.json {
            let rest = self.story.flush();
            self.out.print(&rest)?;
        }
        let bad =
            self.args.status && matches!(self.story.ended.as_deref(), Some("failed" | "cancelled"));
        Ok(if bad { End::TaskFailed } else { End::Done })
    }
}
