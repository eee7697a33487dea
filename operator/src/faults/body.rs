//! Answers that were made up, or that end too early.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tower::BoxError;

/// How much of a truncated answer arrives: less than any object has.
const ARRIVES: usize = 64;

/// What a server sends to a watch whose place in the history is gone.
const GONE: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version (injected)","reason":"Expired","code":410}}"#,
    "\n"
);

/// The body of an answer that passed the layer.
pub struct Answer<B> {
    /// What the server says, if it was asked.
    inner: Option<B>,
    until: Until,
    /// Said at the end.
    last: Option<Bytes>,
}

enum Until {
    /// The end of what the server says.
    End,
    Bytes(usize),
    Time(Pin<Box<Sleep>>),
}

impl<B> Answer<B> {
    pub(super) fn made_up(text: String) -> Self {
        Self { inner: None, until: Until::End, last: Some(text.into()) }
    }

    pub(super) fn whole(inner: B) -> Self {
        Self { inner: Some(inner), until: Until::End, last: None }
    }

    pub(super) fn truncated(inner: B) -> Self {
        Self { inner: Some(inner), until: Until::Bytes(ARRIVES), last: None }
    }

    /// `inner` for that time, then nothing or, when `expired`, the news that the place in the history is gone.
    pub(super) fn ended(inner: B, after: Duration, expired: bool) -> Self {
        let last = expired.then(|| Bytes::from_static(GONE.as_bytes()));
        Self { inner: Some(inner), until: Until::Time(Box::pin(sleep(after))), last }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.until {
            Until::End => false,
            Until::Bytes(left) => *left == 0,
            Until::Time(sleep) => sleep.as_mut().poll(cx).is_ready(),
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.inner.is_some() && this.is_over(cx) {
            this.inner = None;
        }
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(this.last.take().map(|last| Ok(Frame::data(last))));
        };
        let frame = std::task::ready!(Pin::new(inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            let Until::Bytes(left) = &mut this.until else { return Ok(frame) };
            Ok(frame.map_data(|mut data| {
                data.truncate(*left);
                *left -= data.len();
                data
            }))
        }))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as Sent;
    use futures::StreamExt as _;

    use super::*;

    async fn read(answer: Answer<Sent>) -> String {
        let bytes = axum::body::to_bytes(Sent::new(answer), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_truncated_answer_is_its_beginning_and_a_watch_ends_when_its_time_is_up() {
        assert_eq!(read(Answer::whole(Sent::from("all"))).await, "all");
        assert_eq!(read(Answer::made_up("said".into())).await, "said");
        assert_eq!(read(Answer::truncated(Sent::from("x".repeat(1000)))).await, "x".repeat(ARRIVES));
        assert_eq!(read(Answer::truncated(Sent::from("short"))).await, "short");
        let event = || futures::stream::iter([Ok::<_, std::io::Error>("{}\n")]);
        let events = || Sent::from_stream(event().chain(futures::stream::pending()));
        let soon = Duration::from_millis(20);
        assert_eq!(read(Answer::ended(events(), soon, false)).await, "{}\n");
        assert_eq!(read(Answer::ended(events(), soon, true)).await, format!("{{}}\n{GONE}"));
    }
}
