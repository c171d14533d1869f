package example;

import static example.Support.*;

import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.NullValue;
import com.google.protobuf.Timestamp;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.LongStream;
import statehouse.v1.*;

/**
 * What a Java program does with a Statehouse in its first week, with nothing but stubs generated from proto/statehouse/v1.
 *
 * <p>STATEHOUSE_ADDRESS and STATEHOUSE_TOKEN say which service, STATEHOUSE_NAME is the name of the area, the dict and the lock that it
 * uses. It prints a line for each thing that it has seen to work, and fails at the first one that does not.
 */
public final class Main {
  private final Channel anonymous;
  private final Channel channel;
  private final DictsGrpc.DictsBlockingStub dicts;

  public static void main(String[] arguments) throws Exception {
    // TLS: TlsChannelCredentials instead.
    ManagedChannel channel =
        Grpc.newChannelBuilder(System.getenv("STATEHOUSE_ADDRESS"), InsecureChannelCredentials.create()).build();
    try {
      Main main = new Main(channel);
      main.checkHealth();
      main.tryWrongToken();
      main.useArea();
      main.setAndGet();
      main.incrementOnce();
      main.meetConflict();
      main.holdLock();
      main.watchKey();
      main.streamBatches();
      main.exceedDeadline();
    } finally {
      channel.shutdownNow().awaitTermination(PATIENCE_S, TimeUnit.SECONDS);
    }
  }

  private Main(Channel anonymous) {
    this.anonymous = anonymous;
    channel = withToken(anonymous, System.getenv("STATEHOUSE_TOKEN"));
    dicts = patient(DictsGrpc.newBlockingStub(channel));
  }

  private void checkHealth() {
    HealthCheckRequest request = HealthCheckRequest.newBuilder().setService("statehouse.v1.Dicts").build();
    HealthCheckResponse answer = patient(HealthGrpc.newBlockingStub(anonymous)).check(request);
    checkEqual(answer.getStatus(), HealthCheckResponse.ServingStatus.SERVING);
    System.out.println("health: serving");
  }

  private void tryWrongToken() throws InvalidProtocolBufferException {
    AdminGrpc.AdminBlockingStub admin = patient(AdminGrpc.newBlockingStub(withToken(anonymous, "no such token")));
    GetStatusRequest request = GetStatusRequest.getDefaultInstance();
    ErrorDetail detail =
        refused(() -> admin.getStatus(request), Status.Code.UNAUTHENTICATED, ErrorReason.ERROR_REASON_UNAUTHENTICATED);
    check(!detail.getRetryable(), "trying again does not help", detail);
    System.out.println("wrong token: refused");
  }

  private void useArea() throws InvalidProtocolBufferException {
    AreasGrpc.AreasBlockingStub areas = patient(AreasGrpc.newBlockingStub(channel));
    areas.createArea(CreateAreaRequest.newBuilder().setName(NAME).setSize(4096).build());
    ByteString hello = ByteString.copyFromUtf8("hello");
    areas.writeArea(WriteAreaRequest.newBuilder().setName(NAME).setPos(64).setData(hello).build());
    ReadAreaRequest.Builder read = ReadAreaRequest.newBuilder().setName(NAME);
    checkEqual(areas.readArea(read.setPos(64).setLen(5).build()).getData(), hello);
    for (long expected : new long[] {1L << 60, 2L << 60}) { // A word is 64 bits of whole number.
      AddWordRequest add = AddWordRequest.newBuilder().setName(NAME).setType(WordType.WORD_TYPE_U64).setDelta(1L << 60).build();
      checkEqual(areas.addWord(add).getValue().getUnsignedValue(), expected);
    }
    ReadAreaRequest beyond = read.setPos(4095).setLen(2).build();
    ErrorDetail detail = refused(() -> areas.readArea(beyond), Status.Code.OUT_OF_RANGE, ErrorReason.ERROR_REASON_OUT_OF_BOUNDS);
    checkEqual(detail.getName(), NAME);
    System.out.println("area: written, read and added to");
  }

  private void setAndGet() {
    dicts.createDict(CreateDictRequest.newBuilder().setName(NAME).build());
    // statehouse.v1.List and Map are not those of java.util.
    Value.Builder ports = Value.newBuilder().setListValue(statehouse.v1.List.newBuilder().addValues(value(80)).addValues(value(443)));
    MapEntry.Builder entry = MapEntry.newBuilder().setKey("ports").setValue(ports);
    Map<String, Value.Builder> kinds = Map.of(
        "null", Value.newBuilder().setNullValue(NullValue.NULL_VALUE),
        "bool", Value.newBuilder().setBoolValue(true),
        "int", Value.newBuilder().setIntValue((1L << 53) + 1),
        "float", Value.newBuilder().setFloatValue(2),
        "text", Value.newBuilder().setStringValue("Größe"),
        "bytes", Value.newBuilder().setBytesValue(ByteString.copyFrom(new byte[] {0, (byte) 255})),
        "time", Value.newBuilder().setTimestampValue(Timestamp.newBuilder().setSeconds(1_700_000_000).setNanos(5_000_000)),
        "map", Value.newBuilder().setMapValue(statehouse.v1.Map.newBuilder().addEntries(entry)));
    kinds.forEach((key, value) -> {
      dicts.setEntry(set(key, value.build()).build());
      checkEqual(dicts.getEntry(get(key).build()).getEntry().getValue(), value.build());
    });

    // One edit and one read of a part: the second of the ports.
    List<PathStep> path = List.of(PathStep.newBuilder().setKey("ports").build(), PathStep.newBuilder().setIndex(1).build());
    Edit.Builder edit = Edit.newBuilder().setSet(value(8443));
    dicts.editEntry(EditEntryRequest.newBuilder().setName(NAME).setKey("map").addAllPathSteps(path).setEdit(edit).build());
    checkEqual(dicts.getEntry(get("map").addAllPathSteps(path).build()).getEntry().getValue(), value(8443));
    // An absent key is no error and has no entry.
    checkEqual(dicts.getEntry(get("absent").build()).hasEntry(), false);
    System.out.println("dict: each kind of value came back");
  }

  /** Sends one increment twice, as after a lost answer: the operation id makes it count once. */
  private void incrementOnce() {
    OperationId.Builder id = OperationId.newBuilder().setSession(newOperationSession()).setSequence(1);
    IncrementEntryRequest request =
        IncrementEntryRequest.newBuilder().setName(NAME).setKey("visits").setDelta(value(5)).setOperationId(id).build();
    IncrementEntryResponse first = dicts.incrementEntry(request);
    checkEqual(first.getValue(), value(5));
    checkEqual(dicts.incrementEntry(request), first);
    System.out.println("increment: sent twice, counted once");
  }

  private void meetConflict() throws InvalidProtocolBufferException {
    long first = dicts.setEntry(set("release", value("1.3")).build()).getVersion();
    SetEntryRequest swap = set("release", value("1.4")).setCondition(Condition.newBuilder().setVersion(first)).build();
    SetEntryResponse second = dicts.setEntry(swap);
    check(second.getApplied() && second.getVersion() > first, "the version was the expected one", second);
    // A set whose condition does not hold is no error; an edit is refused.
    SetEntryResponse late = dicts.setEntry(swap);
    check(!late.getApplied() && late.getVersion() == second.getVersion(), "the version is another one now", late);
    EditEntryRequest.Builder edit = EditEntryRequest.newBuilder().setName(NAME).setKey("release").setIfVersion(first);
    edit.setEdit(Edit.newBuilder().setAppendString("-late"));
    refused(() -> dicts.editEntry(edit.build()), Status.Code.ABORTED, ErrorReason.ERROR_REASON_CONFLICT);
    System.out.println("compare and set: conflict");
  }

  /** Takes a lock twice; what the first holder writes afterwards is refused, because the token of its lease is older. */
  private void holdLock() throws Exception {
    SessionsGrpc.SessionsBlockingStub sessions = patient(SessionsGrpc.newBlockingStub(channel));
    LocksGrpc.LocksBlockingStub locks = patient(LocksGrpc.newBlockingStub(channel));
    long session = sessions.openSession(OpenSessionRequest.newBuilder().setClientName("stubs in Java").build()).getSessionId();
    // As long as this call waits, the session lives by its connection; when the program dies, the lock is free at once.
    Future<HoldSessionResponse> held = patient(SessionsGrpc.newFutureStub(channel))
        .holdSession(HoldSessionRequest.newBuilder().setSessionId(session).build());
    RenewSessionRequest renew = RenewSessionRequest.newBuilder().setSessionId(session).build();
    while (!sessions.renewSession(renew).getHeld()) {}

    List<Long> tokens = new ArrayList<>();
    for (long request = 1; request <= 2; ++request) {
      AcquireLockRequest.Builder acquire = AcquireLockRequest.newBuilder().setName(NAME).setMode(LockMode.LOCK_MODE_EXCLUSIVE);
      acquire.setSessionId(session).setRequestId(request);
      acquire.setTtl(Duration.newBuilder().setSeconds(10)).setTimeout(Duration.newBuilder().setSeconds(5));
      AcquireLockResponse lease = locks.acquireLock(acquire.build());
      check(lease.getAcquired(), "the lock is had", lease);
      tokens.add(lease.getToken());
      dicts.setEntry(set("fenced", value(request)).setFence(lease.getToken()).build());
      ReleaseLockRequest.Builder release = ReleaseLockRequest.newBuilder().setName(NAME).setSessionId(session);
      check(locks.releaseLock(release.setToken(lease.getToken()).build()).getHeld(), "it was held until now", lease);
    }
    SetEntryRequest late = set("fenced", value("late")).setFence(tokens.get(0)).build();
    refused(() -> dicts.setEntry(late), Status.Code.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_FENCED);

    sessions.closeSession(CloseSessionRequest.newBuilder().setSessionId(session).build());
    check(held.get().getEnded(), "the session is over", held);
    System.out.println("lock: held, fenced and released");
  }

  private void watchKey() throws Exception {
    long before = dicts.setEntry(set("watched", value("before")).build()).getVersion();
    WatchDictRequest request = WatchDictRequest.newBuilder().setName(NAME).setKey("watched").build();
    Context.CancellableContext watching = Context.current().withCancellation();
    Iterator<WatchDictResponse> messages = watching.call(() -> dicts.watchDict(request));

    WatchSnapshot snapshot = messages.next().getSnapshot();
    check(snapshot.getEntriesCount() == 1 && snapshot.getEntries(0).getVersion() == before, "it has the entry", snapshot);
    checkEqual(messages.next().getEventCase(), WatchDictResponse.EventCase.SYNCED);

    long after = dicts.setEntry(set("watched", value("after")).build()).getVersion();
    WatchChanges changes = messages.next().getChanges();
    checkEqual(changes.getChangesCount(), 1);
    DictChange change = changes.getChanges(0);
    check(change.getKind() == ChangeKind.CHANGE_KIND_PUT && change.getVersion() == after, "it is its own set", change);
    checkEqual(change.getValue(), value("after"));

    watching.cancel(null);
    checkEqual(failureOf(messages::hasNext).getStatus().getCode(), Status.Code.CANCELLED);
    System.out.println("watch: snapshot, synced, change");
  }

  /** Has 100 increments under way, ten in a message, and waits for none of them before it sends the next. */
  private void streamBatches() throws Exception {
    List<Long> numbers = new ArrayList<>();
    CompletableFuture<List<Long>> answered = new CompletableFuture<>();
    StreamObserver<RunBatchesResponse> answers = new StreamObserver<>() {
      @Override
      public void onNext(RunBatchesResponse answer) {
        answer.getResult().getResultsList().forEach(result -> numbers.add(result.getIncrement().getNumber()));
      }

      @Override
      public void onError(Throwable failure) {
        answered.completeExceptionally(failure);
      }

      @Override
      public void onCompleted() {
        answered.complete(numbers);
      }
    };
    StreamObserver<RunBatchesRequest> requests = patient(BatchesGrpc.newStub(channel)).runBatches(answers);
    OperationId.Builder id = OperationId.newBuilder().setSession(newOperationSession());
    EntryIncrement.Builder increment = EntryIncrement.newBuilder().setDict(0).setKey("batched"); // The dict by its place in names.
    for (long first = 1; first <= 100; first += 10) {
      Batch.Builder batch = Batch.newBuilder().addNames(NAME).setOperationId(id.setSequence(first));
      for (int count = 0; count < 10; ++count) {
        batch.addOperations(Operation.newBuilder().setIncrement(increment));
      }
      requests.onNext(RunBatchesRequest.newBuilder().setBatch(batch).build());
    }
    requests.onCompleted();
    checkEqual(answered.get(), LongStream.rangeClosed(1, 100).boxed().toList());
    System.out.println("batches: 100 increments in order");
  }

  private void exceedDeadline() {
    WaitEntryRequest wait = WaitEntryRequest.newBuilder().setName(NAME).setKey("never").setPresent(true).build();
    StatusRuntimeException failure = failureOf(() -> dicts.withDeadlineAfter(200, TimeUnit.MILLISECONDS).waitEntry(wait));
    checkEqual(failure.getStatus().getCode(), Status.Code.DEADLINE_EXCEEDED);
    System.out.println("deadline: exceeded");
  }
}
