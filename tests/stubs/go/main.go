// What a Go program does with a Statehouse in its first week, with nothing but stubs generated from proto/statehouse/v1.
//
// STATEHOUSE_ADDRESS and STATEHOUSE_TOKEN say which service, STATEHOUSE_NAME is the name of the area, the dict and the lock that it uses.
// It prints a line for each thing that it has seen to work, and fails at the first one that does not.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "example.com/stubs/statehouse/v1"
)

// A service that does not answer ends the program, instead of holding it up.
const patience = 30 * time.Second

var name = os.Getenv("STATEHOUSE_NAME")

func main() {
	log.SetFlags(0)
	// TLS: credentials.NewClientTLSFromFile instead.
	connection := must(grpc.NewClient(os.Getenv("STATEHOUSE_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	health(ctx, connection)
	wrongToken(ctx, connection)
	ctx = withToken(ctx, os.Getenv("STATEHOUSE_TOKEN"))
	area(ctx, pb.NewAreasClient(connection))
	dicts := pb.NewDictsClient(connection)
	values(ctx, dicts)
	increment(ctx, dicts)
	conflict(ctx, dicts)
	lock(ctx, pb.NewSessionsClient(connection), pb.NewLocksClient(connection), dicts)
	watch(ctx, dicts)
	batches(ctx, pb.NewBatchesClient(connection))
	deadline(ctx, dicts)
}

// must and check end the program where something is not as it has to be.
func must[T any](answer T, err error) T {
	check(err == nil, "the call succeeds", err)
	return answer
}

func check(holds bool, what string, seen ...any) {
	if !holds {
		log.Panic("not so: ", what, seen)
	}
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// refused checks that a call was refused for a reason, which travels in the status's details. Branch on the reason, never on the text.
func refused(err error, code codes.Code, reason pb.ErrorReason) *pb.ErrorDetail {
	refusal := status.Convert(err)
	check(refusal.Code() == code, "the code is "+code.String(), err)
	check(len(refusal.Details()) == 1, "there is one detail", refusal.Details())
	detail, ok := refusal.Details()[0].(*pb.ErrorDetail)
	check(ok && detail.Reason == reason, "the reason is "+reason.String(), detail)
	return detail
}

func intValue(number int64) *pb.Value { return &pb.Value{Kind: &pb.Value_IntValue{IntValue: number}} }

func text(s string) *pb.Value { return &pb.Value{Kind: &pb.Value_StringValue{StringValue: s}} }

func health(ctx context.Context, connection *grpc.ClientConn) {
	answer := must(healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{Service: "statehouse.v1.Dicts"}))
	check(answer.Status == healthpb.HealthCheckResponse_SERVING, "it serves", answer)
	fmt.Println("health: serving")
}

func wrongToken(ctx context.Context, connection *grpc.ClientConn) {
	_, err := pb.NewAdminClient(connection).GetStatus(withToken(ctx, "no such token"), &pb.GetStatusRequest{})
	detail := refused(err, codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_UNAUTHENTICATED)
	check(!detail.Retryable, "trying again does not help", detail)
	fmt.Println("wrong token: refused")
}

func area(ctx context.Context, areas pb.AreasClient) {
	must(areas.CreateArea(ctx, &pb.CreateAreaRequest{Name: name, Size: 4096}))
	must(areas.WriteArea(ctx, &pb.WriteAreaRequest{Name: name, Pos: 64, Data: []byte("hello")}))
	read := must(areas.ReadArea(ctx, &pb.ReadAreaRequest{Name: name, Pos: 64, Len: proto.Uint64(5)}))
	check(bytes.Equal(read.Data, []byte("hello")), "what was written is read", read)
	for _, expected := range []uint64{1 << 60, 2 << 60} { // A word is 64 bits of whole number.
		added := must(areas.AddWord(ctx, &pb.AddWordRequest{Name: name, Type: pb.WordType_WORD_TYPE_U64, Delta: proto.Int64(1 << 60)}))
		check(added.Value.GetUnsignedValue() == expected, "the word is the sum", added)
	}
	_, err := areas.ReadArea(ctx, &pb.ReadAreaRequest{Name: name, Pos: 4095, Len: proto.Uint64(2)})
	detail := refused(err, codes.OutOfRange, pb.ErrorReason_ERROR_REASON_OUT_OF_BOUNDS)
	check(detail.Name == name, "the detail names the area", detail)
	fmt.Println("area: written, read and added to")
}

func values(ctx context.Context, dicts pb.DictsClient) {
	must(dicts.CreateDict(ctx, &pb.CreateDictRequest{Name: name}))
	ports := &pb.Value{Kind: &pb.Value_ListValue{ListValue: &pb.List{Values: []*pb.Value{intValue(80), intValue(443)}}}}
	kinds := map[string]*pb.Value{
		"null":  {Kind: &pb.Value_NullValue{NullValue: structpb.NullValue_NULL_VALUE}},
		"bool":  {Kind: &pb.Value_BoolValue{BoolValue: true}},
		"int":   intValue(1<<53 + 1),
		"float": {Kind: &pb.Value_FloatValue{FloatValue: 2}},
		"text":  text("Größe"),
		"bytes": {Kind: &pb.Value_BytesValue{BytesValue: []byte{0, 255}}},
		"time":  {Kind: &pb.Value_TimestampValue{TimestampValue: timestamppb.New(time.Unix(1_700_000_000, 5_000_000))}},
		"map":   {Kind: &pb.Value_MapValue{MapValue: &pb.Map{Entries: []*pb.MapEntry{{Key: "ports", Value: ports}}}}},
	}
	for key, value := range kinds {
		must(dicts.SetEntry(ctx, &pb.SetEntryRequest{Name: name, Key: key, Value: value}))
		got := must(dicts.GetEntry(ctx, &pb.GetEntryRequest{Name: name, Key: key}))
		check(proto.Equal(got.Entry.GetValue(), value), key+" comes back as it was set", got)
	}

	// One edit and one read of a part: the second of the ports.
	path := []*pb.PathStep{{Step: &pb.PathStep_Key{Key: "ports"}}, {Step: &pb.PathStep_Index{Index: 1}}}
	edit := &pb.Edit{Kind: &pb.Edit_Set{Set: intValue(8443)}}
	must(dicts.EditEntry(ctx, &pb.EditEntryRequest{Name: name, Key: "map", PathSteps: path, Edit: edit}))
	got := must(dicts.GetEntry(ctx, &pb.GetEntryRequest{Name: name, Key: "map", PathSteps: path}))
	check(got.Entry.GetValue().GetIntValue() == 8443, "the part is as it was edited", got)
	absent := must(dicts.GetEntry(ctx, &pb.GetEntryRequest{Name: name, Key: "absent"}))
	check(absent.Entry == nil, "an absent key is no error and has no entry", absent)
	fmt.Println("dict: each kind of value came back")
}

// increment sends one increment twice, as after a lost answer: the operation id makes it count once.
func increment(ctx context.Context, dicts pb.DictsClient) {
	request := &pb.IncrementEntryRequest{Name: name, Key: "visits", Delta: intValue(5)}
	request.OperationId = &pb.OperationId{Session: rand.Uint64() | 1, Sequence: 1}
	first := must(dicts.IncrementEntry(ctx, request))
	check(first.Value.GetIntValue() == 5, "it counts", first)
	again := must(dicts.IncrementEntry(ctx, request))
	check(proto.Equal(again, first), "it counts once and is answered as the first time", again)
	fmt.Println("increment: sent twice, counted once")
}

func conflict(ctx context.Context, dicts pb.DictsClient) {
	first := must(dicts.SetEntry(ctx, &pb.SetEntryRequest{Name: name, Key: "release", Value: text("1.3")}))
	swap := &pb.SetEntryRequest{Name: name, Key: "release", Value: text("1.4")}
	swap.Condition = &pb.Condition{Kind: &pb.Condition_Version{Version: first.Version}}
	second := must(dicts.SetEntry(ctx, swap))
	check(second.Applied && second.Version > first.Version, "the version was the expected one", second)
	// A set whose condition does not hold is no error; an edit is refused.
	late := must(dicts.SetEntry(ctx, swap))
	check(!late.Applied && late.Version == second.Version, "the version is another one now", late)
	edit := &pb.EditEntryRequest{Name: name, Key: "release", IfVersion: first.Version}
	edit.Edit = &pb.Edit{Kind: &pb.Edit_AppendString{AppendString: "-late"}}
	_, err := dicts.EditEntry(ctx, edit)
	refused(err, codes.Aborted, pb.ErrorReason_ERROR_REASON_CONFLICT)
	fmt.Println("compare and set: conflict")
}

// lock takes a lock twice; what the first holder writes afterwards is refused, because the token of its lease is older.
func lock(ctx context.Context, sessions pb.SessionsClient, locks pb.LocksClient, dicts pb.DictsClient) {
	session := must(sessions.OpenSession(ctx, &pb.OpenSessionRequest{ClientName: "stubs in Go"}))
	// As long as this call waits, the session lives by its connection; when the program dies, the lock is free at once.
	held := make(chan *pb.HoldSessionResponse, 1)
	go func() {
		answer := must(sessions.HoldSession(ctx, &pb.HoldSessionRequest{SessionId: session.SessionId}))
		held <- answer
	}()
	for isHeld := false; !isHeld; {
		answer := must(sessions.RenewSession(ctx, &pb.RenewSessionRequest{SessionId: session.SessionId}))
		isHeld = answer.Held
	}

	var tokens []uint64
	for request := uint64(1); request <= 2; request++ {
		lease := must(locks.AcquireLock(ctx, &pb.AcquireLockRequest{
			Name: name, SessionId: session.SessionId, RequestId: request, Mode: pb.LockMode_LOCK_MODE_EXCLUSIVE,
			Ttl: durationpb.New(10 * time.Second), Timeout: durationpb.New(5 * time.Second),
		}))
		check(lease.Acquired, "the lock is had", lease)
		tokens = append(tokens, lease.Token)
		write := &pb.SetEntryRequest{Name: name, Key: "fenced", Value: intValue(int64(request)), Fence: lease.Token}
		must(dicts.SetEntry(ctx, write))
		release := &pb.ReleaseLockRequest{Name: name, SessionId: session.SessionId, Token: lease.Token}
		released := must(locks.ReleaseLock(ctx, release))
		check(released.Held, "it was held until now", released)
	}
	_, err := dicts.SetEntry(ctx, &pb.SetEntryRequest{Name: name, Key: "fenced", Value: text("late"), Fence: tokens[0]})
	refused(err, codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_FENCED)

	must(sessions.CloseSession(ctx, &pb.CloseSessionRequest{SessionId: session.SessionId}))
	check((<-held).Ended, "the session is over")
	fmt.Println("lock: held, fenced and released")
}

func watch(ctx context.Context, dicts pb.DictsClient) {
	before := must(dicts.SetEntry(ctx, &pb.SetEntryRequest{Name: name, Key: "watched", Value: text("before")}))
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := must(dicts.WatchDict(watching, &pb.WatchDictRequest{Name: name, Select: &pb.WatchDictRequest_Key{Key: "watched"}}))

	message := must(stream.Recv())
	entries := message.GetSnapshot().GetEntries()
	check(len(entries) == 1 && entries[0].Version == before.Version, "the snapshot has the entry", message)
	message = must(stream.Recv())
	check(message.GetSynced() != nil, "then it is up to date", message)

	after := must(dicts.SetEntry(ctx, &pb.SetEntryRequest{Name: name, Key: "watched", Value: text("after")}))
	message = must(stream.Recv())
	check(len(message.GetChanges().GetChanges()) == 1, "then its own set comes", message)
	change := message.GetChanges().Changes[0]
	check(change.Kind == pb.ChangeKind_CHANGE_KIND_PUT && change.Version == after.Version, "it is that one", change)
	check(change.Value.GetStringValue() == "after", "with its value", change)

	cancel()
	_, err := stream.Recv()
	check(status.Code(err) == codes.Canceled, "it is cancelled", err)
	fmt.Println("watch: snapshot, synced, change")
}

// batches has 100 increments under way, ten in a message, and waits for none of them before it sends the next.
func batches(ctx context.Context, client pb.BatchesClient) {
	stream := must(client.RunBatches(ctx))
	session := rand.Uint64() | 1
	go func() {
		for first := uint64(1); first <= 100; first += 10 {
			batch := &pb.Batch{Names: []string{name}, OperationId: &pb.OperationId{Session: session, Sequence: first}}
			for range 10 {
				increment := &pb.EntryIncrement{Dict: 0, Key: "batched"} // The dict by its place in Names.
				batch.Operations = append(batch.Operations, &pb.Operation{Kind: &pb.Operation_Increment{Increment: increment}})
			}
			check(stream.Send(&pb.RunBatchesRequest{Batch: batch}) == nil, "it is sent")
		}
		check(stream.CloseSend() == nil, "that is all")
	}()

	total := int64(0)
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			break
		}
		must(answer, err)
		check(len(answer.GetResult().GetResults()) == 10, "there is a result for each operation", answer)
		for _, result := range answer.Result.Results {
			total++
			check(result.GetIncrement().GetNumber() == total, "the answers are in order", result)
		}
	}
	check(total == 100, "all were answered", total)
	fmt.Println("batches: 100 increments in order")
}

func deadline(ctx context.Context, dicts pb.DictsClient) {
	waiting, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	until := &pb.WaitEntryRequest_Present{Present: true}
	_, err := dicts.WaitEntry(waiting, &pb.WaitEntryRequest{Name: name, Key: "never", Until: until})
	check(status.Code(err) == codes.DeadlineExceeded, "the deadline is kept", err)
	fmt.Println("deadline: exceeded")
}
