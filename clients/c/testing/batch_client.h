// For tests of batches through the C library.
#pragma once

#include <memory>
#include <string>

#include "clients/c/testing/dict_client.h"
#include "statehouse/batch.h"

namespace statehouse {

struct BatchEnder {
  void operator()(sh_batch* batch) const { sh_batch_end(batch); }
};
struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};
using BatchPtr = std::unique_ptr<sh_batch, BatchEnder>;
using AreaPtr = std::unique_ptr<sh_area, AreaCloser>;

class BatchClientTest : public DictClientTest {
 protected:
  BatchPtr Begin(bool stop_at_failure = false) {
    sh_batch_options options{};
    options.stop_at_failure = stop_at_failure ? 1 : 0;
    sh_batch* batch = nullptr;
    EXPECT_EQ(sh_batch_begin(client_.get(), &options, &batch, nullptr), SH_OK);
    return BatchPtr(batch);
  }
  AreaPtr OpenArea(const char* name, uint64_t size) {
    sh_area* area = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_area_open(client_.get(), name, size, &area, &error), SH_OK)
        << sh_error_message(error);
    sh_error_free(error);
    return AreaPtr(area);
  }
  // Runs a batch that succeeds, and says what is wrong where it does not.
  static sh_reason RunAll(sh_batch* batch) {
    size_t failed = 0;
    sh_error* error = nullptr;
    const sh_reason reason = sh_batch_run(batch, &failed, &error);
    EXPECT_EQ(reason, SH_OK) << "operation " << failed << ": " << sh_error_message(error);
    sh_error_free(error);
    return reason;
  }
  // Whether nobody has a lock.
  bool IsFree(const char* name) {
    return testing::Eventually([&] {
      sh_lock_info* info = nullptr;
      EXPECT_EQ(sh_lock_describe(client_.get(), name, &info, nullptr), SH_OK);
      const bool is_free = info != nullptr && info->holder_count == 0;
      sh_lock_infos_free(info, 1);
      return is_free;
    });
  }
};

}  // namespace statehouse
