// The quickstart's second program: another language than the applications, over TCP, with nothing
// but the stubs that protoc makes from proto/. It prints what it finds: the numbers "number",
// "hits", "once" and "users_count" of the shared dict, and the sum over the workers' slots in the
// area "quickstart".
//
//   quickstart_reader HOST:PORT        the access token comes in STATEHOUSE_TOKEN
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include "statehouse/v1/area.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"

namespace {

using statehouse::v1::Areas;
using statehouse::v1::Dicts;

void Prepare(grpc::ClientContext* context, const std::string& token) {
  context->AddMetadata("authorization", "Bearer " + token);
  context->set_wait_for_ready(true);
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

bool Report(const char* call, const grpc::Status& status) {
  if (status.ok()) return true;
  std::cerr << call << ": " << status.error_message() << " (code " << status.error_code() << ")\n";
  return false;
}

// 0 where there is no such key yet.
bool ReadNumber(Dicts::Stub* stub, const std::string& token, const char* key, int64_t* number) {
  grpc::ClientContext context;
  Prepare(&context, token);
  statehouse::v1::GetEntryRequest request;
  request.set_name("managers/shared_dict");
  request.set_key(key);
  statehouse::v1::GetEntryResponse response;
  if (!Report("GetEntry", stub->GetEntry(&context, request, &response))) return false;
  *number = response.entry().value().int_value();
  return true;
}

bool SumSlots(Areas::Stub* stub, const std::string& token, uint64_t* sum) {
  grpc::ClientContext context;
  Prepare(&context, token);
  statehouse::v1::ReadAreaRequest request;
  request.set_name("quickstart");
  request.set_pos(64);
  statehouse::v1::ReadAreaResponse response;
  if (!Report("ReadArea", stub->ReadArea(&context, request, &response))) return false;
  *sum = 0;
  for (size_t at = 0; at + sizeof(uint64_t) <= response.data().size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, response.data().data() + at, sizeof word);
    *sum += word >> 32;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const char* token = std::getenv("STATEHOUSE_TOKEN");
  if (argc != 2 || token == nullptr) {
    std::cerr << "usage: STATEHOUSE_TOKEN=… quickstart_reader HOST:PORT\n";
    return 2;
  }
  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  const std::unique_ptr<Dicts::Stub> dicts = Dicts::NewStub(channel);
  const std::unique_ptr<Areas::Stub> areas = Areas::NewStub(channel);
  for (const char* key : {"number", "hits", "once", "users_count"}) {
    int64_t number = 0;
    if (!ReadNumber(dicts.get(), token, key, &number)) return 1;
    std::cout << number << " ";
  }
  uint64_t sum = 0;
  if (!SumSlots(areas.get(), token, &sum)) return 1;
  std::cout << sum << "\n";
  return 0;
}
