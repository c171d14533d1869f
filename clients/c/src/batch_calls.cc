// The part of the C interface that concerns batches as a whole, and their results.
#include <string>

#include "clients/c/src/batch_handle.h"

namespace statehouse {
namespace {

Status Null(const char* what) { return Status(Reason::kInvalidArgument, what); }

// Gives a result: `show` reads it where the operation was carried out and shows such a one.
template <typename Show>
sh_reason Give(const sh_batch* batch, size_t index, uint16_t shows, const char* what,
               const Show& show, sh_error** error) {
  if (batch == nullptr) return Finish(Null("the batch is NULL"), nullptr, error);
  const auto found = batch->Find(index, shows, what);
  if (!found.ok()) return Finish(found.status(), nullptr, error);
  const BatchOperation& operation = **found;
  if (operation.error != nullptr) {
    if (error != nullptr) *error = new sh_error(*operation.error);
    return operation.error->reason;
  }
  show(operation.result);
  return SH_OK;
}

template <typename T>
void Put(T* out, const T& value) {
  if (out != nullptr) *out = value;
}

}  // namespace
}  // namespace statehouse

using statehouse::BatchResult;
using statehouse::Finish;
using statehouse::Give;
using statehouse::Null;
using statehouse::Put;
using statehouse::Status;

sh_reason sh_batch_begin(sh_client* client, const sh_batch_options* options, sh_batch** batch,
                         sh_error** error) {
  if (client == nullptr || batch == nullptr) {
    return Finish(Null("sh_batch_begin: client or batch is NULL"), nullptr, error);
  }
  *batch = new sh_batch(*client, options != nullptr && options->stop_at_failure != 0);
  return SH_OK;
}

size_t sh_batch_count(const sh_batch* batch) { return batch == nullptr ? 0 : batch->count(); }

sh_reason sh_batch_run(sh_batch* batch, size_t* failed, sh_error** error) {
  if (batch == nullptr) return Finish(Null("the batch is NULL"), nullptr, error);
  size_t first = 0;
  const Status may_run = batch->Run(&first);
  if (!may_run.ok()) return Finish(may_run, nullptr, error);
  if (first == batch->count()) return SH_OK;
  Put(failed, first);
  return sh_batch_result(batch, first, error);
}

void sh_batch_clear(sh_batch* batch) {
  if (batch != nullptr) batch->Clear();
}

void sh_batch_end(sh_batch* batch) { delete batch; }

sh_reason sh_batch_result(const sh_batch* batch, size_t index, sh_error** error) {
  return Give(
      batch, index, statehouse::kShowsNothing, "", [](const BatchResult&) {}, error);
}

sh_reason sh_batch_result_entry(const sh_batch* batch, size_t index, const sh_entry** entry,
                                sh_error** error) {
  const auto show = [&](const BatchResult& result) { Put(entry, &result.entry); };
  return Give(batch, index, statehouse::kShowsEntry, "entry", show, error);
}

sh_reason sh_batch_result_entries(const sh_batch* batch, size_t index, const sh_entries** entries,
                                  sh_error** error) {
  const auto show = [&](const BatchResult& result) {
    Put<const sh_entries*>(entries, &result.large->entries);
  };
  return Give(batch, index, statehouse::kShowsEntries, "entries", show, error);
}

sh_reason sh_batch_result_outcome(const sh_batch* batch, size_t index, sh_outcome* outcome,
                                  sh_error** error) {
  const auto show = [&](const BatchResult& result) { Put(outcome, result.outcome); };
  return Give(batch, index, statehouse::kShowsOutcome, "outcome", show, error);
}

sh_reason sh_batch_result_number(const sh_batch* batch, size_t index, sh_number* sum,
                                 uint64_t* version, sh_error** error) {
  const auto show = [&](const BatchResult& result) {
    Put(sum, result.number);
    Put(version, result.outcome.version);
  };
  return Give(batch, index, statehouse::kShowsNumber, "number", show, error);
}

sh_reason sh_batch_result_count(const sh_batch* batch, size_t index, uint64_t* count,
                                sh_error** error) {
  const auto show = [&](const BatchResult& result) { Put(count, result.count); };
  return Give(batch, index, statehouse::kShowsCount, "count", show, error);
}

sh_reason sh_batch_result_versions(const sh_batch* batch, size_t index, const uint64_t** versions,
                                   size_t* count, sh_error** error) {
  const auto show = [&](const BatchResult& result) {
    Put<const uint64_t*>(versions, result.large->versions.data());
    Put(count, result.large->versions.size());
  };
  return Give(batch, index, statehouse::kShowsVersions, "versions", show, error);
}

sh_reason sh_batch_result_word(const sh_batch* batch, size_t index, uint64_t* value,
                               sh_error** error) {
  const auto show = [&](const BatchResult& result) { Put(value, result.count); };
  return Give(batch, index, statehouse::kShowsWord, "word", show, error);
}

sh_reason sh_batch_result_exchange(const sh_batch* batch, size_t index, int* exchanged,
                                   uint64_t* found, sh_error** error) {
  const auto show = [&](const BatchResult& result) {
    Put(exchanged, result.flag);
    Put(found, result.count);
  };
  return Give(batch, index, statehouse::kShowsExchange, "exchange", show, error);
}

sh_reason sh_batch_result_bytes(const sh_batch* batch, size_t index, sh_bytes* bytes,
                                sh_error** error) {
  const auto show = [&](const BatchResult& result) {
    Put(bytes, statehouse::FromBytes(result.large->bytes));
  };
  return Give(batch, index, statehouse::kShowsBytes, "bytes", show, error);
}

sh_reason sh_batch_result_released(const sh_batch* batch, size_t index, int* held,
                                   sh_error** error) {
  const auto show = [&](const BatchResult& result) { Put(held, result.flag); };
  return Give(batch, index, statehouse::kShowsReleased, "release", show, error);
}
