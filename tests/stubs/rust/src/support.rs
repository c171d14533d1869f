//! What each of the program's steps uses: the access token, the reason of a refusal, short ways to write requests.
use std::error::Error;
use std::fmt::Debug;

use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::statehouse::{value::Kind, *};

/// Sends the access token with each call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    pub fn new(token: &str) -> Result<Token, Box<dyn Error>> {
        Ok(Token(format!("Bearer {token}").parse()?))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub type Service = InterceptedService<Channel, Token>;

/// Checks that a call was refused for a reason, which travels in the status's details. Branch on the reason, never on the text.
pub fn refused<T: Debug>(answer: Result<Response<T>, Status>, code: Code, reason: ErrorReason) -> ErrorDetail {
    let status = answer.expect_err("it is refused");
    assert_eq!(status.code(), code, "{status}");
    let details = tonic_types::pb::Status::decode(status.details()).expect("a google.rpc.Status").details;
    assert_eq!(details.len(), 1);
    assert_eq!(details[0].type_url, "type.googleapis.com/statehouse.v1.ErrorDetail");
    let detail = ErrorDetail::decode(&*details[0].value).expect("an ErrorDetail");
    assert_eq!(detail.reason(), reason);
    detail
}

pub fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

pub fn int(number: i64) -> Value {
    value(Kind::IntValue(number))
}

pub fn text(text: &str) -> Value {
    value(Kind::StringValue(text.into()))
}

pub fn set(name: &str, key: &str, value: Value) -> SetEntryRequest {
    SetEntryRequest { name: name.into(), key: key.into(), value: Some(value), ..Default::default() }
}

pub fn edit_request(name: &str, key: &str, kind: edit::Kind) -> EditEntryRequest {
    let edit = Some(Edit { kind: Some(kind) });
    EditEntryRequest { name: name.into(), key: key.into(), edit, ..Default::default() }
}
