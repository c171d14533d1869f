// What a JavaScript program does with a Statehouse in its first week, with nothing but stubs generated from proto/statehouse/v1.
//
// STATEHOUSE_ADDRESS and STATEHOUSE_TOKEN say which service, STATEHOUSE_NAME is the name of the area, the dict and the lock that it uses.
// It prints a line for each thing that it has seen to work, and fails at the first one that does not. Whole numbers of 64 bits are
// BigInt.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { ChannelCredentials } from '@grpc/grpc-js';
import { GrpcTransport } from '@protobuf-ts/grpc-transport';

import { Any } from './gen/google/protobuf/any.js';
import { NullValue } from './gen/google/protobuf/struct.js';
import { HealthClient } from './gen/grpc/health/v1/health.client.js';
import { HealthCheckResponse_ServingStatus as ServingStatus } from './gen/grpc/health/v1/health.js';
import { RpcStatus } from './gen/statehouse/internal/v1/rpc_status.js'; // google.rpc.Status by another name: it has the same bytes.
import { AdminClient } from './gen/statehouse/v1/admin.client.js';
import { AreasClient } from './gen/statehouse/v1/area.client.js';
import * as area from './gen/statehouse/v1/area.js';
import { BatchesClient } from './gen/statehouse/v1/batch.client.js';
import { RunBatchesRequest } from './gen/statehouse/v1/batch.js';
import { DictsClient } from './gen/statehouse/v1/dict.client.js';
import * as dict from './gen/statehouse/v1/dict.js';
import { ErrorDetail, ErrorReason } from './gen/statehouse/v1/error.js';
import { LocksClient } from './gen/statehouse/v1/lock.client.js';
import * as lock from './gen/statehouse/v1/lock.js';
import { SessionsClient } from './gen/statehouse/v1/session.client.js';
import * as session from './gen/statehouse/v1/session.js';
import { Value } from './gen/statehouse/v1/value.js';
import { ChangeKind, WatchDictRequest } from './gen/statehouse/v1/watch.js';

const { STATEHOUSE_ADDRESS: host, STATEHOUSE_TOKEN: token, STATEHOUSE_NAME: name } = process.env;
const PATIENCE_MS = 30_000; // A service that does not answer ends the program, instead of holding it up.

const transport = new GrpcTransport({
  host,
  channelCredentials: ChannelCredentials.createInsecure(), // TLS: createSsl.
  meta: { authorization: `Bearer ${token}` },
  timeout: PATIENCE_MS,
});
const areas = new AreasClient(transport);
const dicts = new DictsClient(transport);
const locks = new LocksClient(transport);
const sessions = new SessionsClient(transport);

/** Checks that a call is refused for a reason, which travels in the trailer. Branch on the reason, never on the text. */
async function refused(call, code, reason) {
  const error = await call.then(() => assert.fail('it was not refused'), (refusal) => refusal);
  assert.equal(error.code, code, error);
  const status = RpcStatus.fromBinary(Buffer.from(error.meta['grpc-status-details-bin'], 'base64'));
  assert.equal(status.details.length, 1);
  const detail = Any.unpack(status.details[0], ErrorDetail);
  assert.equal(detail.reason, reason);
  return detail;
}

const one = (kind, value) => ({ kind: { oneofKind: kind, [kind]: value } });
const int = (number) => one('intValue', number);
const text = (string) => one('stringValue', string);
const set = async (fields) => (await dicts.setEntry(dict.SetEntryRequest.create({ name, ...fields }))).response;
const get = async (fields) => (await dicts.getEntry(dict.GetEntryRequest.create({ name, ...fields }))).response.entry;

/** The session of operation ids: 64 bits that are not 0. */
const newOperationSession = () => randomBytes(8).readBigUInt64LE() | 1n;

async function checkHealth() {
  const { response } = await new HealthClient(transport).check({ service: 'statehouse.v1.Dicts' });
  assert.equal(response.status, ServingStatus.SERVING);
  console.log('health: serving');
}

async function tryWrongToken() {
  const call = new AdminClient(transport).getStatus({}, { meta: { authorization: 'Bearer no such token' } });
  const detail = await refused(call, 'UNAUTHENTICATED', ErrorReason.UNAUTHENTICATED);
  assert.equal(detail.retryable, false);
  console.log('wrong token: refused');
}

async function useArea() {
  await areas.createArea(area.CreateAreaRequest.create({ name, size: 4096n }));
  await areas.writeArea(area.WriteAreaRequest.create({ name, pos: 64n, data: Buffer.from('hello') }));
  const { response: read } = await areas.readArea({ name, pos: 64n, len: 5n });
  assert.equal(Buffer.from(read.data).toString(), 'hello');
  for (const expected of [1n << 60n, 2n << 60n]) { // A word is 64 bits of whole number.
    const add = area.AddWordRequest.create({ name, type: area.WordType.U64, delta: 1n << 60n });
    const { response: added } = await areas.addWord(add);
    assert.equal(added.value.kind.unsignedValue, expected);
  }
  const detail = await refused(areas.readArea({ name, pos: 4095n, len: 2n }), 'OUT_OF_RANGE', ErrorReason.OUT_OF_BOUNDS);
  assert.equal(detail.name, name);
  console.log('area: written, read and added to');
}

async function setAndGet() {
  await dicts.createDict(dict.CreateDictRequest.create({ name }));
  const ports = one('listValue', { values: [int(80n), int(443n)] });
  const kinds = {
    null: one('nullValue', NullValue.NULL_VALUE),
    bool: one('boolValue', true),
    int: int((1n << 53n) + 1n),
    float: one('floatValue', 2),
    text: text('Größe'),
    bytes: one('bytesValue', Uint8Array.of(0, 255)),
    time: one('timestampValue', { seconds: 1_700_000_000n, nanos: 5_000_000 }),
    map: one('mapValue', { entries: [{ key: 'ports', value: ports }] }),
  };
  for (const [key, value] of Object.entries(kinds)) {
    await set({ key, value });
    assert.ok(Value.equals((await get({ key })).value, value), `${key} comes back as it was set`);
  }

  // One edit and one read of a part: the second of the ports.
  const pathSteps = [{ step: { oneofKind: 'key', key: 'ports' } }, { step: { oneofKind: 'index', index: 1n } }];
  await dicts.editEntry(dict.EditEntryRequest.create({ name, key: 'map', pathSteps, edit: one('set', int(8443n)) }));
  assert.equal((await get({ key: 'map', pathSteps })).value.kind.intValue, 8443n);
  assert.equal(await get({ key: 'absent' }), undefined, 'an absent key is no error and has no entry');
  console.log('dict: each kind of value came back');
}

/** Sends one increment twice, as after a lost answer: the operation id makes it count once. */
async function incrementOnce() {
  const operationId = { session: newOperationSession(), sequence: 1n };
  const request = dict.IncrementEntryRequest.create({ name, key: 'visits', delta: int(5n), operationId });
  const { response: first } = await dicts.incrementEntry(request);
  assert.equal(first.value.kind.intValue, 5n);
  assert.deepEqual((await dicts.incrementEntry(request)).response, first);
  console.log('increment: sent twice, counted once');
}

async function meetConflict() {
  const first = await set({ key: 'release', value: text('1.3') });
  const swap = { key: 'release', value: text('1.4'), condition: one('version', first.version) };
  const second = await set(swap);
  assert.ok(second.applied && second.version > first.version);
  // A set whose condition does not hold is no error; an edit is refused.
  const late = await set(swap);
  assert.deepEqual([late.applied, late.version], [false, second.version]);
  const edit = { name, key: 'release', edit: one('appendString', '-late'), ifVersion: first.version };
  await refused(dicts.editEntry(dict.EditEntryRequest.create(edit)), 'ABORTED', ErrorReason.CONFLICT);
  console.log('compare and set: conflict');
}

/** Takes a lock twice; what the first holder writes afterwards is refused, because the token of its lease is older. */
async function holdLock() {
  const open = session.OpenSessionRequest.create({ clientName: 'stubs in JavaScript' });
  const { sessionId } = (await sessions.openSession(open)).response;
  // As long as this call waits, the session lives by its connection; when the program dies, the lock is free at once.
  const held = sessions.holdSession({ sessionId }).response;
  while (!(await sessions.renewSession({ sessionId })).response.held);

  const ttl = { seconds: 10n, nanos: 0 };
  const timeout = { seconds: 5n, nanos: 0 };
  const tokens = [];
  for (const requestId of [1n, 2n]) {
    const acquire = lock.AcquireLockRequest.create({ name, sessionId, requestId, mode: lock.LockMode.EXCLUSIVE, ttl, timeout });
    const { acquired, token: leaseToken } = (await locks.acquireLock(acquire)).response;
    assert.ok(acquired);
    tokens.push(leaseToken);
    await set({ key: 'fenced', value: int(requestId), fence: leaseToken });
    const { response: released } = await locks.releaseLock({ name, sessionId, token: leaseToken });
    assert.ok(released.held, 'it was held until now');
  }
  await refused(set({ key: 'fenced', value: text('late'), fence: tokens[0] }), 'FAILED_PRECONDITION', ErrorReason.FENCED);

  await sessions.closeSession({ sessionId });
  assert.ok((await held).ended, 'the session is over');
  console.log('lock: held, fenced and released');
}

async function watchKey() {
  const before = await set({ key: 'watched', value: text('before') });
  const stop = new AbortController();
  const request = WatchDictRequest.create({ name, select: { oneofKind: 'key', key: 'watched' } });
  const messages = dicts.watchDict(request, { abort: stop.signal }).responses[Symbol.asyncIterator]();
  const next = async () => (await messages.next()).value.event;

  const { entries } = (await next()).snapshot;
  assert.deepEqual(entries.map((entry) => entry.version), [before.version]);
  assert.equal((await next()).oneofKind, 'synced');

  const after = await set({ key: 'watched', value: text('after') });
  const { changes } = (await next()).changes;
  assert.deepEqual(changes.map(({ kind, version }) => [kind, version]), [[ChangeKind.PUT, after.version]]);
  assert.equal(changes[0].value.kind.stringValue, 'after');

  stop.abort();
  await assert.rejects(messages.next(), { code: 'CANCELLED' });
  console.log('watch: snapshot, synced, change');
}

/** Has 100 increments under way, ten in a message, and waits for none of them before it sends the next. */
async function streamBatches() {
  const call = new BatchesClient(transport).runBatches();
  const operationSession = newOperationSession();
  const increment = one('increment', { dict: 0, key: 'batched' }); // The dict by its place in names.
  const sendAll = async () => {
    for (let first = 1; first <= 100; first += 10) {
      const operationId = { session: operationSession, sequence: BigInt(first) };
      const batch = { names: [name], operationId, operations: Array(10).fill(increment) };
      await call.requests.send(RunBatchesRequest.create({ batch }));
    }
    await call.requests.complete();
  };
  const sent = sendAll();

  const numbers = [];
  for await (const { result } of call.responses) numbers.push(...result.results.map(({ kind }) => kind.increment.number));
  await sent;
  assert.deepEqual(numbers, Array.from({ length: 100 }, (_, index) => BigInt(index + 1)));
  console.log('batches: 100 increments in order');
}

async function exceedDeadline() {
  const wait = dict.WaitEntryRequest.create({ name, key: 'never', until: { oneofKind: 'present', present: true } });
  await assert.rejects(dicts.waitEntry(wait, { timeout: 200 }).response, { code: 'DEADLINE_EXCEEDED' });
  console.log('deadline: exceeded');
}

await checkHealth();
await tryWrongToken();
await useArea();
await setAndGet();
await incrementOnce();
await meetConflict();
await holdLock();
await watchKey();
await streamBatches();
await exceedDeadline();
transport.close();
