package example;

import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import statehouse.v1.ErrorDetail;
import statehouse.v1.ErrorReason;
import statehouse.v1.GetEntryRequest;
import statehouse.v1.SetEntryRequest;
import statehouse.v1.Value;

/** What each of the program's steps uses: the access token, the reason of a refusal, short ways to write requests. */
final class Support {
  static final long PATIENCE_S = 30; // A service that does not answer ends the program, instead of holding it up.
  static final String NAME = System.getenv("STATEHOUSE_NAME");

  static Channel withToken(Channel anonymous, String token) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return ClientInterceptors.intercept(anonymous, MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  static <S extends AbstractStub<S>> S patient(S stub) {
    return stub.withDeadlineAfter(PATIENCE_S, TimeUnit.SECONDS);
  }

  static void check(boolean holds, String what, Object seen) {
    if (!holds) {
      throw new AssertionError("not so: " + what + ": " + seen);
    }
  }

  static void checkEqual(Object seen, Object expected) {
    check(seen.equals(expected), "it is " + expected, seen);
  }

  static StatusRuntimeException failureOf(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException failure) {
      return failure;
    }
    throw new AssertionError("the call did not fail");
  }

  /** Checks that a call is refused for a reason, which travels in the trailer. Branch on the reason, never on the text. */
  static ErrorDetail refused(Runnable call, Status.Code code, ErrorReason reason) throws InvalidProtocolBufferException {
    StatusRuntimeException failure = failureOf(call);
    checkEqual(failure.getStatus().getCode(), code);
    com.google.rpc.Status status = StatusProto.fromThrowable(failure);
    checkEqual(status.getDetailsCount(), 1);
    ErrorDetail detail = status.getDetails(0).unpack(ErrorDetail.class);
    checkEqual(detail.getReason(), reason);
    return detail;
  }

  static Value value(long number) {
    return Value.newBuilder().setIntValue(number).build();
  }

  static Value value(String text) {
    return Value.newBuilder().setStringValue(text).build();
  }

  static SetEntryRequest.Builder set(String key, Value value) {
    return SetEntryRequest.newBuilder().setName(NAME).setKey(key).setValue(value);
  }

  static GetEntryRequest.Builder get(String key) {
    return GetEntryRequest.newBuilder().setName(NAME).setKey(key);
  }

  /** The session of operation ids: 64 bits that are not 0. */
  static long newOperationSession() {
    return ThreadLocalRandom.current().nextLong() | 1;
  }

  private Support() {}
}
