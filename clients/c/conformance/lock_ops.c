#define _POSIX_C_SOURCE 200809L /* strdup */
#include "lock_ops.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "dict_arguments.h"

#define HANDLES_MAX 2048 /* Locks that one case may ask for, */
#define CLIENTS_MAX 8    /* and clients that it may open. */
#define LABEL_BYTES_MAX 64

/* A lock that a case asked for, by the name that the case gave it. */
typedef struct handle {
  char label[LABEL_BYTES_MAX];
  sh_lock *lock; /* NULL: not had, or given back. */
  /* The request. */
  sh_client *client;
  char *name;
  int is_range; /* Of the area `name`. */
  uint64_t pos;
  uint64_t len;
  char *owner;
  sh_lock_options options;
  /* Its answer, once the thread, if there is one, has ended. */
  pthread_t thread;
  int waits;
  sh_reason reason;
  sh_error *error;
  /* Whether the loss was told. */
  pthread_mutex_t mutex;
  pthread_cond_t told;
  int lost;
} handle;

static handle *handles[HANDLES_MAX];
static size_t handle_count;
static struct {
  char label[LABEL_BYTES_MAX];
  sh_client *client; /* NULL: closed. */
} clients[CLIENTS_MAX];
static size_t client_count;

static void copy_label(const char *from, char *to) {
  if (strlen(from) >= LABEL_BYTES_MAX) give_up("a label is too long");
  memcpy(to, from, strlen(from) + 1);
}

static char *copy_of(const char *text) {
  char *copy = text == NULL ? NULL : strdup(text);
  if (text != NULL && copy == NULL) give_up("no memory");
  return copy;
}

static sh_reason print_null(void) {
  print_done();
  return SH_OK;
}

static sh_reason print_truth(int truth) {
  printf("{\"ok\": %s}\n", truth ? "true" : "false");
  return SH_OK;
}

static sh_reason print_count(uint64_t number) {
  printf("{\"ok\": %" PRIu64 "}\n", number);
  return SH_OK;
}

static handle *find_handle(const char *label) {
  size_t i;
  for (i = handle_count; i > 0; --i) {
    if (strcmp(handles[i - 1]->label, label) == 0) return handles[i - 1];
  }
  return NULL;
}

static void on_lost(void *context) {
  handle *it = context;
  pthread_mutex_lock(&it->mutex);
  it->lost = 1;
  pthread_cond_broadcast(&it->told);
  pthread_mutex_unlock(&it->mutex);
}

static int is_told(handle *it, int await) {
  int lost;
  pthread_mutex_lock(&it->mutex);
  while (await && !it->lost) pthread_cond_wait(&it->told, &it->mutex);
  lost = it->lost;
  pthread_mutex_unlock(&it->mutex);
  return lost;
}

/* Whether a type of the interface does not hold a member, or it means another thing there: 0 is
 * what is not given. */
static int is_beyond(const flat_json *in) {
  static const char *const kTimes[] = {"ttl_ms", "hold_max_ms", "limit", "timeout_ms", "token"};
  size_t i;
  for (i = 0; i < sizeof(kTimes) / sizeof(kTimes[0]); ++i) {
    const flat_json_member *member = flat_json_find(in, kTimes[i]);
    if (member == NULL) continue;
    if (!member->fits || member->text[0] == '-') return 1;
    if (i < 3 && member->number == 0) return 1;
    if (i == 2 && member->number > UINT32_MAX) return 1;
  }
  return 0;
}

static void *acquire(void *context) {
  handle *it = context;
  sh_area *area = NULL;
  if (!it->is_range) {
    it->reason = sh_lock_acquire(it->client, it->name, &it->options, &it->lock, &it->error);
    return NULL;
  }
  it->reason = sh_area_open(it->client, it->name, 0, &area, &it->error);
  if (it->reason != SH_OK) return NULL;
  it->reason =
      sh_area_lock(it->client, area, it->pos, it->len, &it->options, &it->lock, &it->error);
  sh_area_close(area);
  return NULL;
}

static handle *new_handle(sh_client *client, const flat_json *in) {
  handle *it = calloc(1, sizeof(*it));
  if (it == NULL || handle_count == HANDLES_MAX) give_up("too many locks are asked for");
  handles[handle_count++] = it;
  pthread_mutex_init(&it->mutex, NULL);
  pthread_cond_init(&it->told, NULL);
  copy_label(flat_json_text(in, "as", ""), it->label);
  it->client = client;
  it->name = copy_of(flat_json_text(in, "name", NULL));
  it->is_range = flat_json_find(in, "pos") != NULL;
  it->pos = flat_json_number(in, "pos", 0);
  it->len = flat_json_number(in, "len", 0);
  it->owner = copy_of(flat_json_text(in, "owner", NULL));
  it->options.mode = flat_json_number(in, "shared", 0) ? SH_LOCK_SHARED : SH_LOCK_EXCLUSIVE;
  it->options.limit = (uint32_t)flat_json_number(in, "limit", 0);
  it->options.ttl_ms = flat_json_number(in, "ttl_ms", 0);
  it->options.hold_max_ms = flat_json_number(in, "hold_max_ms", 0);
  it->options.timeout_ms = flat_json_number(in, "timeout_ms", 0);
  it->options.try_only = flat_json_number(in, "try", 0) != 0;
  it->options.manual_renewal = flat_json_number(in, "manual_renewal", 0) != 0;
  it->options.owner = it->owner;
  it->options.on_lost = on_lost;
  it->options.context = it;
  return it;
}

/* The answer to the request; its errors go to *error. */
static sh_reason finish(handle *it, sh_error **error) {
  if (it->waits) pthread_join(it->thread, NULL);
  it->waits = 0;
  *error = it->error;
  it->error = NULL;
  return it->reason != SH_OK ? it->reason : print_truth(it->lock != NULL);
}

static sh_reason do_acquire(sh_client *client, const char *op, const flat_json *in,
                            sh_error **error) {
  handle *it;
  if (is_beyond(in)) return inexpressible();
  it = new_handle(client, in);
  if (strcmp(op, "acquire_lock") == 0) {
    acquire(it);
    return finish(it, error);
  }
  if (pthread_create(&it->thread, NULL, acquire, it) != 0) give_up("no thread");
  it->waits = 1;
  return print_null();
}

static sh_reason do_show(handle *it, const char *show) {
  uint64_t left_ms = 0;
  const int held = sh_lock_held(it->lock, &left_ms);
  if (strcmp(show, "held") == 0) return print_truth(held);
  if (strcmp(show, "lost") == 0) return print_truth(is_told(it, 0));
  return print_count(strcmp(show, "left_ms") == 0 ? left_ms : sh_lock_token(it->lock));
}

static sh_reason do_handle(const char *op, const flat_json *in, sh_error **error) {
  handle *it = find_handle(flat_json_text(in, "as", ""));
  sh_reason reason = SH_OK;
  if (it != NULL && strcmp(op, "finish_acquire") == 0) return finish(it, error);
  if (it == NULL || it->lock == NULL) return inexpressible(); /* No handle to pass. */
  if (strcmp(op, "release_lock") == 0) {
    int held = 0;
    reason = sh_lock_release(it->lock, &held, error);
    it->lock = NULL;
    return reason == SH_OK ? print_truth(held) : reason;
  }
  if (strcmp(op, "renew_lock") == 0) {
    if (is_beyond(in)) return inexpressible();
    reason = sh_lock_renew(it->lock, flat_json_number(in, "ttl_ms", 0), error);
    return reason == SH_OK ? print_null() : reason;
  }
  if (strcmp(op, "await_loss") == 0) return print_truth(is_told(it, 1));
  return do_show(it, flat_json_text(in, "show", "token"));
}

static void print_parties(const sh_lock_info *info, int waiting) {
  const char *between = "";
  size_t i;
  printf("[");
  for (i = 0; i < info->party_count; ++i) {
    const sh_lock_party *party = &info->parties[i];
    if ((party->token == 0) != waiting) continue;
    printf("%s{\"owner\": ", between);
    print_string(sh_text(party->owner));
    printf(", \"shared\": %s}", party->mode == SH_LOCK_SHARED ? "true" : "false");
    between = ", ";
  }
  printf("]");
}

static void print_info(const sh_lock_info *info, const char *show) {
  const sh_lock_party *first = info->parties;
  if (*show == '\0') {
    printf("{\"ok\": {\"limit\": %" PRIu32 ", \"holders\": ", info->limit);
    print_parties(info, 0);
    printf(", \"waiters\": ");
    print_parties(info, 1);
    printf("}}\n");
  } else if (strcmp(show, "name") == 0) {
    printf("{\"ok\": ");
    print_string(sh_text(info->name));
    printf("}\n");
  } else if (strcmp(show, "holder_count") == 0) {
    print_count(info->holder_count);
  } else if (strcmp(show, "waiter_count") == 0) {
    print_count(info->waiter_count);
  } else if (info->party_count == 0) {
    print_null();
  } else if (strcmp(show, "token") == 0) {
    print_count(first->token);
  } else if (strcmp(show, "left_ms") == 0) {
    print_count(first->expires_ms);
  } else if (strcmp(show, "since_ms") == 0) {
    print_count(first->since_ms);
  } else {
    print_truth(first->session_id != 0);
  }
}

static int compare_names(const void *one, const void *other) {
  return strcmp(*(const char *const *)one, *(const char *const *)other);
}

static sh_reason do_list(sh_client *client, const flat_json *in, sh_error **error) {
  sh_lock_info *infos = NULL;
  size_t count = 0;
  size_t i;
  const char **names;
  const sh_reason reason =
      sh_lock_list(client, flat_json_text(in, "prefix", NULL), &infos, &count, error);
  if (reason != SH_OK) return reason;
  names = calloc(count + 1, sizeof(*names));
  if (names == NULL) give_up("no memory");
  for (i = 0; i < count; ++i) names[i] = infos[i].name;
  qsort(names, count, sizeof(*names), compare_names);
  if (strcmp(flat_json_text(in, "show", ""), "count") == 0) {
    print_count(count);
  } else {
    printf("{\"ok\": [");
    for (i = 0; i < count; ++i) {
      if (i > 0) printf(", ");
      print_string(sh_text(names[i]));
    }
    printf("]}\n");
  }
  free(names);
  sh_lock_infos_free(infos, count);
  return SH_OK;
}

static sh_reason do_client(sh_client *client, const char *op, const flat_json *in,
                           sh_error **error) {
  const char *name = flat_json_text(in, "name", NULL);
  sh_reason reason;
  if (strcmp(op, "describe_lock") == 0) {
    sh_lock_info *info = NULL;
    reason = sh_lock_describe(client, name, &info, error);
    if (reason == SH_OK) print_info(info, flat_json_text(in, "show", ""));
    sh_lock_infos_free(info, 1);
    return reason;
  }
  if (strcmp(op, "list_locks") == 0) return do_list(client, in, error);
  if (strcmp(op, "force_release_lock") == 0) {
    uint32_t released = 0;
    if (is_beyond(in)) return inexpressible();
    reason =
        sh_lock_force_release(client, name, flat_json_number(in, "token", 0), &released, error);
    return reason == SH_OK ? print_count(released) : reason;
  }
  return do_acquire(client, op, in, error);
}

static sh_reason do_open_client(const sh_options *options, const flat_json *in, sh_error **error) {
  sh_options mine = *options;
  sh_client *client = NULL;
  sh_reason reason;
  mine.token = flat_json_text(in, "token", NULL);
  reason = sh_connect(NULL, &mine, &client, error);
  if (reason != SH_OK) return reason;
  if (client_count == CLIENTS_MAX) give_up("too many clients are opened");
  copy_label(flat_json_text(in, "client", ""), clients[client_count].label);
  clients[client_count++].client = client;
  return print_null();
}

/* The client that the line names, or the program's own. */
static sh_client **client_of(sh_client **own, const flat_json *in) {
  const char *label = flat_json_text(in, "client", "");
  size_t i;
  if (*label == '\0') return own;
  for (i = client_count; i > 0; --i) {
    if (strcmp(clients[i - 1].label, label) == 0) return &clients[i - 1].client;
  }
  give_up("there is no such client");
  return NULL;
}

static int is_one_of(const char *op, const char *const *ops, size_t count) {
  size_t i;
  for (i = 0; i < count; ++i) {
    if (strcmp(op, ops[i]) == 0) return 1;
  }
  return 0;
}

sh_reason do_locks(sh_client *client, const sh_options *options, const char *op,
                   const flat_json *in, int *known, sh_error **error) {
  static const char *const kOfClients[] = {"acquire_lock", "start_acquire", "describe_lock",
                                           "list_locks", "force_release_lock"};
  static const char *const kOfHandles[] = {"finish_acquire", "release_lock", "renew_lock",
                                           "await_loss", "show_lock"};
  sh_client **asked;
  *known = 1;
  if (strcmp(op, "open_client") == 0) return do_open_client(options, in, error);
  if (strcmp(op, "let_go") == 0) {
    let_locks_go();
    return print_null();
  }
  if (is_one_of(op, kOfHandles, sizeof(kOfHandles) / sizeof(kOfHandles[0]))) {
    return do_handle(op, in, error);
  }
  asked = client_of(&client, in);
  if (strcmp(op, "close_client") == 0) {
    sh_close(*asked);
    *asked = NULL;
    return print_null();
  }
  if (is_one_of(op, kOfClients, sizeof(kOfClients) / sizeof(kOfClients[0]))) {
    return *asked == NULL ? inexpressible() : do_client(*asked, op, in, error);
  }
  *known = 0;
  return SH_OK;
}

static void free_handle(handle *it) {
  if (it->waits) pthread_join(it->thread, NULL);
  sh_lock_release(it->lock, NULL, NULL);
  sh_error_free(it->error);
  pthread_cond_destroy(&it->told);
  pthread_mutex_destroy(&it->mutex);
  free(it->name);
  free(it->owner);
  free(it);
}

void let_locks_go(void) {
  size_t i;
  for (i = 0; i < handle_count; ++i) free_handle(handles[i]);
  handle_count = 0;
  for (i = 0; i < client_count; ++i) sh_close(clients[i].client);
  client_count = 0;
}
