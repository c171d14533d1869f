#include "service/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/status.h>

#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/error.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ErrorResponse;
using grpc::reflection::v1::FileDescriptorResponse;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

// The files whose services this binary serves. Naming a message of each also keeps the linker from
// dropping the file.
std::vector<const FileDescriptor*> ServedFiles() {
  return {v1::Area::descriptor()->file(),
          v1::GetEntryRequest::descriptor()->file(),
          v1::Lock::descriptor()->file(),
          v1::Batch::descriptor()->file(),
          v1::Session::descriptor()->file(),
          v1::GetStatusRequest::descriptor()->file(),
          grpc::health::v1::HealthCheckRequest::descriptor()->file(),
          ServerReflectionRequest::descriptor()->file(),
          grpc::reflection::v1alpha::ServerReflectionRequest::descriptor()->file()};
}

// A file and what it imports, without what was sent before. A file that is asked for by name is
// sent again.
void AddFile(const FileDescriptor* file, bool again, std::unordered_set<std::string>* sent,
             FileDescriptorResponse* response) {
  if (!sent->insert(file->name()).second && !again) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFile(file->dependency(i), /*again=*/false, sent, response);
  }
}

void SetError(grpc::StatusCode code, std::string message, ErrorResponse* error) {
  error->set_error_code(code);
  error->set_error_message(std::move(message));
}

const FileDescriptor* FileOfExtension(const DescriptorPool& pool,
                                      const grpc::reflection::v1::ExtensionRequest& request) {
  const Descriptor* type = pool.FindMessageTypeByName(request.containing_type());
  if (type == nullptr) return nullptr;
  const auto* extension = pool.FindExtensionByNumber(type, request.extension_number());
  return extension == nullptr ? nullptr : extension->file();
}

}  // namespace

std::vector<std::string> ServedServices() {
  // error.proto has no service, but its ErrorDetail travels in trailers: tools ask for it.
  (void)v1::ErrorDetail::descriptor();
  std::vector<std::string> names;
  for (const FileDescriptor* file : ServedFiles()) {
    for (int i = 0; i < file->service_count(); ++i) names.push_back(file->service(i)->full_name());
  }
  return names;
}

ServerReflectionResponse ReflectionStream::Answer(const ServerReflectionRequest& request) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  const FileDescriptor* file = nullptr;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : ServedServices()) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      return response;
    case ServerReflectionRequest::kAllExtensionNumbersOfType: {
      const std::string& name = request.all_extension_numbers_of_type();
      const Descriptor* type = pool.FindMessageTypeByName(name);
      if (type == nullptr) break;
      auto* numbers = response.mutable_all_extension_numbers_response();
      numbers->set_base_type_name(name);
      std::vector<const google::protobuf::FieldDescriptor*> extensions;
      pool.FindAllExtensions(type, &extensions);
      for (const auto* extension : extensions) numbers->add_extension_number(extension->number());
      return response;
    }
    case ServerReflectionRequest::kFileByFilename:
      file = pool.FindFileByName(request.file_by_filename());
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      file = pool.FindFileContainingSymbol(request.file_containing_symbol());
      break;
    case ServerReflectionRequest::kFileContainingExtension:
      file = FileOfExtension(pool, request.file_containing_extension());
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      SetError(grpc::StatusCode::INVALID_ARGUMENT, "the request asks nothing",
               response.mutable_error_response());
      return response;
  }
  if (file == nullptr) {
    SetError(grpc::StatusCode::NOT_FOUND, "this server has no such file, symbol or type",
             response.mutable_error_response());
  } else {
    AddFile(file, /*again=*/true, &sent_, response.mutable_file_descriptor_response());
  }
  return response;
}

}  // namespace statehouse
