//! What a Rust program does with a Statehouse in its first week, with nothing but stubs generated from proto/statehouse/v1 (build.rs).
//!
//! STATEHOUSE_ADDRESS and STATEHOUSE_TOKEN say which service, STATEHOUSE_NAME is the name of the area, the dict and the lock that it
//! uses. It prints a line for each thing that it has seen to work, and fails at the first one that does not.
use std::env;
use std::error::Error;
use std::time::Duration;

use prost_types::Timestamp;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use health::health_client::HealthClient;
use statehouse::admin_client::AdminClient;
use statehouse::areas_client::AreasClient;
use statehouse::batches_client::BatchesClient;
use statehouse::dicts_client::DictsClient;
use statehouse::locks_client::LocksClient;
use statehouse::sessions_client::SessionsClient;
use statehouse::watch_dict_response::Event;
use statehouse::{value::Kind, *};
use support::{Service, Token, edit_request, int, refused, set, text, value};

mod support;
mod statehouse {
    tonic::include_proto!("statehouse.v1");
}
mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// A service that does not answer ends the program, instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(30);

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    tokio::time::timeout(PATIENCE, run()).await?
}

async fn run() -> Done {
    let channel = Channel::from_shared(format!("http://{}", env::var("STATEHOUSE_ADDRESS")?))?.connect().await?;
    let name = env::var("STATEHOUSE_NAME")?;
    let service = InterceptedService::new(channel.clone(), Token::new(&env::var("STATEHOUSE_TOKEN")?)?);
    let dicts = DictsClient::new(service.clone());

    check_health(HealthClient::new(channel.clone())).await?;
    try_wrong_token(channel).await?;
    use_area(&name, AreasClient::new(service.clone())).await?;
    set_and_get(&name, dicts.clone()).await?;
    increment_once(&name, dicts.clone()).await?;
    meet_conflict(&name, dicts.clone()).await?;
    hold_lock(&name, &service, dicts.clone()).await?;
    watch_key(&name, dicts.clone()).await?;
    stream_batches(&name, BatchesClient::new(service)).await?;
    exceed_deadline(&name, dicts).await
}

async fn check_health(mut health: HealthClient<Channel>) -> Done {
    let request = health::HealthCheckRequest { service: "statehouse.v1.Dicts".into() };
    let answer = health.check(request).await?.into_inner();
    assert_eq!(answer.status(), health::health_check_response::ServingStatus::Serving);
    println!("health: serving");
    Ok(())
}

async fn try_wrong_token(channel: Channel) -> Done {
    let mut admin = AdminClient::with_interceptor(channel, Token::new("no such token")?);
    let detail = refused(admin.get_status(GetStatusRequest {}).await, Code::Unauthenticated, ErrorReason::Unauthenticated);
    assert!(!detail.retryable);
    println!("wrong token: refused");
    Ok(())
}

async fn use_area(name: &str, mut areas: AreasClient<Service>) -> Done {
    areas.create_area(CreateAreaRequest { name: name.into(), size: 4096, ..Default::default() }).await?;
    areas.write_area(WriteAreaRequest { name: name.into(), pos: 64, data: b"hello".into(), fence: 0 }).await?;
    let read = areas.read_area(ReadAreaRequest { name: name.into(), pos: 64, len: Some(5) }).await?.into_inner();
    assert_eq!(read.data, b"hello");
    // A word is 64 bits of whole number.
    for expected in [1 << 60, 2 << 60] {
        let add = AddWordRequest { name: name.into(), r#type: WordType::U64.into(), delta: Some(1 << 60), ..Default::default() };
        let sum = areas.add_word(add).await?.into_inner().value;
        assert_eq!(sum.and_then(|word| word.kind), Some(word_value::Kind::UnsignedValue(expected)));
    }
    let beyond = ReadAreaRequest { name: name.into(), pos: 4095, len: Some(2) };
    let detail = refused(areas.read_area(beyond).await, Code::OutOfRange, ErrorReason::OutOfBounds);
    assert_eq!(detail.name, name);
    println!("area: written, read and added to");
    Ok(())
}

async fn set_and_get(name: &str, mut dicts: DictsClient<Service>) -> Done {
    dicts.create_dict(CreateDictRequest { name: name.into(), ..Default::default() }).await?;
    let ports = value(Kind::ListValue(List { values: vec![int(80), int(443)] }));
    let kinds = [
        ("null", value(Kind::NullValue(0))),
        ("bool", value(Kind::BoolValue(true))),
        ("int", int((1 << 53) + 1)),
        ("float", value(Kind::FloatValue(2.0))),
        ("text", text("Größe")),
        ("bytes", value(Kind::BytesValue(vec![0, 255]))),
        ("time", value(Kind::TimestampValue(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }))),
        ("map", value(Kind::MapValue(Map { entries: vec![MapEntry { key: "ports".into(), value: Some(ports) }] }))),
    ];
    let get = |key: &str, path_steps| GetEntryRequest { name: name.into(), key: key.into(), path_steps };
    for (key, value) in kinds {
        dicts.set_entry(set(name, key, value.clone())).await?;
        let got = dicts.get_entry(get(key, vec![])).await?.into_inner();
        assert_eq!(got.entry.and_then(|entry| entry.value), Some(value));
    }

    // One edit and one read of a part: the second of the ports.
    let path = [path_step::Step::Key("ports".into()), path_step::Step::Index(1)].map(|step| PathStep { step: Some(step) });
    let edit = edit_request(name, "map", edit::Kind::Set(int(8443)));
    dicts.edit_entry(EditEntryRequest { path_steps: path.to_vec(), ..edit }).await?;
    let part = dicts.get_entry(get("map", path.to_vec())).await?.into_inner();
    assert_eq!(part.entry.and_then(|entry| entry.value), Some(int(8443)));
    // An absent key is no error and has no entry.
    assert_eq!(dicts.get_entry(get("absent", vec![])).await?.into_inner().entry, None);
    println!("dict: each kind of value came back");
    Ok(())
}

/// Sends one increment twice, as after a lost answer: the operation id makes it count once.
async fn increment_once(name: &str, mut dicts: DictsClient<Service>) -> Done {
    let operation_id = Some(OperationId { session: rand::random::<u64>() | 1, sequence: 1 });
    let (name, key, delta) = (name.into(), "visits".into(), Some(int(5)));
    let request = IncrementEntryRequest { name, key, delta, operation_id, ..Default::default() };
    let first = dicts.increment_entry(request.clone()).await?.into_inner();
    assert_eq!(first.value, Some(int(5)));
    assert_eq!(dicts.increment_entry(request).await?.into_inner(), first);
    println!("increment: sent twice, counted once");
    Ok(())
}

async fn meet_conflict(name: &str, mut dicts: DictsClient<Service>) -> Done {
    let first = dicts.set_entry(set(name, "release", text("1.3"))).await?.into_inner();
    let condition = Some(Condition { kind: Some(condition::Kind::Version(first.version)) });
    let swap = SetEntryRequest { condition, ..set(name, "release", text("1.4")) };
    let second = dicts.set_entry(swap.clone()).await?.into_inner();
    assert!(second.applied && second.version > first.version);
    // A set whose condition does not hold is no error; an edit is refused.
    let late = dicts.set_entry(swap).await?.into_inner();
    assert_eq!((late.applied, late.version), (false, second.version));
    let edit = edit_request(name, "release", edit::Kind::AppendString("-late".into()));
    let edit = EditEntryRequest { if_version: first.version, ..edit };
    refused(dicts.edit_entry(edit).await, Code::Aborted, ErrorReason::Conflict);
    println!("compare and set: conflict");
    Ok(())
}

/// Takes a lock twice; what the first holder writes afterwards is refused, because the token of its lease is older.
async fn hold_lock(name: &str, service: &Service, mut dicts: DictsClient<Service>) -> Done {
    let mut locks = LocksClient::new(service.clone());
    let mut sessions = SessionsClient::new(service.clone());
    let open = OpenSessionRequest { client_name: "stubs in Rust".into(), ..Default::default() };
    let session_id = sessions.open_session(open).await?.into_inner().session_id;
    // As long as this call waits, the session lives by its connection; when the program dies, the lock is free at once.
    let mut holder = sessions.clone();
    let held = tokio::spawn(async move { holder.hold_session(HoldSessionRequest { session_id }).await });
    while !sessions.renew_session(RenewSessionRequest { session_id }).await?.into_inner().held {}

    let mut tokens = vec![];
    for request_id in [1, 2] {
        let acquire = AcquireLockRequest {
            name: name.into(),
            session_id,
            request_id,
            mode: LockMode::Exclusive.into(),
            ttl: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            timeout: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..Default::default()
        };
        let lease = locks.acquire_lock(acquire).await?.into_inner();
        assert!(lease.acquired);
        tokens.push(lease.token);
        dicts.set_entry(SetEntryRequest { fence: lease.token, ..set(name, "fenced", int(request_id as i64)) }).await?;
        let release = ReleaseLockRequest { name: name.into(), session_id, token: lease.token };
        assert!(locks.release_lock(release).await?.into_inner().held, "it was held until now");
    }
    let late = SetEntryRequest { fence: tokens[0], ..set(name, "fenced", text("late")) };
    refused(dicts.set_entry(late).await, Code::FailedPrecondition, ErrorReason::Fenced);

    sessions.close_session(CloseSessionRequest { session_id }).await?;
    assert!(held.await??.into_inner().ended);
    println!("lock: held, fenced and released");
    Ok(())
}

async fn next_event(messages: &mut Streaming<WatchDictResponse>) -> Result<Option<Event>, Status> {
    Ok(messages.message().await?.and_then(|message| message.event))
}

async fn watch_key(name: &str, mut dicts: DictsClient<Service>) -> Done {
    let before = dicts.set_entry(set(name, "watched", text("before"))).await?.into_inner();
    let select = Some(watch_dict_request::Select::Key("watched".into()));
    let request = WatchDictRequest { name: name.into(), select, ..Default::default() };
    let mut messages = dicts.watch_dict(request).await?.into_inner();

    let Some(Event::Snapshot(snapshot)) = next_event(&mut messages).await? else { panic!("no snapshot") };
    assert_eq!(snapshot.entries.iter().map(|entry| entry.version).collect::<Vec<_>>(), [before.version]);
    assert_eq!(next_event(&mut messages).await?, Some(Event::Synced(WatchSynced {})));

    let after = dicts.set_entry(set(name, "watched", text("after"))).await?.into_inner();
    let Some(Event::Changes(changes)) = next_event(&mut messages).await? else { panic!("no changes") };
    let [change] = &changes.changes[..] else { panic!("one change is expected") };
    assert_eq!((change.kind(), change.version), (ChangeKind::Put, after.version));
    assert_eq!(change.value, Some(text("after")));

    drop(messages); // Cancels it.
    println!("watch: snapshot, synced, change");
    Ok(())
}

/// Has 100 increments under way, ten in a message, and waits for none of them before it sends the next.
async fn stream_batches(name: &str, mut batches: BatchesClient<Service>) -> Done {
    let session = rand::random::<u64>() | 1;
    let names = vec![name.to_string()];
    let requests = (1..=100).step_by(10).map(move |sequence| {
        // The dict by its place in names.
        let increment = EntryIncrement { dict: 0, key: "batched".into(), delta: None };
        let operation = Operation { kind: Some(operation::Kind::Increment(increment)) };
        let operation_id = Some(OperationId { session, sequence });
        let (names, operations) = (names.clone(), vec![operation; 10]);
        RunBatchesRequest { batch: Some(Batch { names, operation_id, operations, ..Default::default() }) }
    });
    let mut answers = batches.run_batches(tokio_stream::iter(requests)).await?.into_inner();

    let mut numbers = vec![];
    while let Some(answer) = answers.message().await? {
        for result in answer.result.expect("the batch is carried out").results {
            let Some(operation_result::Kind::Increment(increment)) = result.kind else { panic!("{result:?}") };
            numbers.push(increment.number);
        }
    }
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    println!("batches: 100 increments in order");
    Ok(())
}

async fn exceed_deadline(name: &str, mut dicts: DictsClient<Service>) -> Done {
    let until = Some(wait_entry_request::Until::Present(true));
    let wait = WaitEntryRequest { name: name.into(), key: "never".into(), until, ..Default::default() };
    let mut request = Request::new(wait);
    request.set_timeout(Duration::from_millis(200));
    let status = dicts.wait_entry(request).await.expect_err("nobody sets it");
    // Tonic's own clock says Cancelled, the service's says DeadlineExceeded: whichever is first.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    println!("deadline: exceeded");
    Ok(())
}
