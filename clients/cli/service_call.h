// Calls of any service from commands: messages in, messages out, Failed on refusal.
#pragma once

#include <string>

#include "clients/cli/connection.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {

// `path`: "/statehouse.v1.Admin/GetStatus". `idempotent`: it is sent again where the connection
// broke.
template <typename Response, typename Request>
Response CallService(sh_client* client, const std::string& path, const Request& request,
                     bool idempotent) {
  const std::string bytes = request.SerializeAsString();
  void* answer = nullptr;
  size_t answer_bytes = 0;
  sh_error* error = nullptr;
  Check(sh_call(client, path.c_str(), bytes.data(), bytes.size(), idempotent ? 1 : 0, &answer,
                &answer_bytes, &error),
        error);
  Response response;
  const bool good = response.ParseFromArray(answer, static_cast<int>(answer_bytes));
  sh_call_free(answer);
  if (!good) throw Failed{kExitError, path + ": the answer is no message of this release"};
  return response;
}

}  // namespace statehouse::cli
