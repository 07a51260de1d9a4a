/* What a C program makes of the same key: signatures and searches, with nothing around the calls.
 *
 *     loop MODULE TOKEN-LABEL PIN-FILE KEY-LABEL RS256|ES256
 *     loop MODULE TOKEN-LABEL PIN-FILE list
 *
 * The second form logs in, reads of every key what `hsmjwt key list` shows of it, and prints how many private keys there
 * are. The first one logs in, finds the key, prints `ready`, and then answers each line of stdin, `sign THREADS COUNT START`, with
 * BEGIN and END of the work: COUNT signatures in each of THREADS threads, none of them before START. All three are
 * nanoseconds of CLOCK_MONOTONIC, which is the same in all processes, so that several programs given one START begin
 * together. workers/signer.py speaks the same way.
 *
 * Built as a shared library it is `attach`, `search` and `walked`, for workers/searcher.py: a search within a process
 * that has logged in already, and the time that the last search of anybody spent in C_FindObjectsInit.
 *
 * An error ends the process with a message: a bench has no use for a signature that was not made.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_THREADS = 8, LONGEST_SIGNATURE = 1024, MESSAGE = 400, DIGEST = 32 };

static CK_FUNCTION_LIST *token;
static CK_SLOT_ID slot;
static const char *key_label;
static CK_MECHANISM mechanism;

/* RS256 is hashed by the token, as hsmjwt has it done. SoftHSM 2.6 has no mechanism that hashes for ECDSA, so that for
 * ES256 something of a digest's length is signed; to hash 400 bytes would take a hundredth of the signature's time. */
static CK_BYTE message[MESSAGE];
static CK_ULONG message_length;

struct seat {
  CK_SESSION_HANDLE session;
  CK_OBJECT_HANDLE key;
  pthread_t thread;
  long count;
  int64_t start, begin, end;
};
static struct seat seats[MOST_THREADS];

static void check(const char *function, CK_RV result) {
  if (result == CKR_OK) return;
  fprintf(stderr, "loop: %s gave 0x%lx\n", function, result);
  exit(1);
}

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "loop: %s\n", what);
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void wait_until(int64_t start) {
  struct timespec time = {.tv_sec = start / 1000000000, .tv_nsec = start % 1000000000};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

/* One search to its end, and one read of what hsmjwt wants to know of a key that is to sign. */
static CK_OBJECT_HANDLE find_key(CK_SESSION_HANDLE session) {
  CK_OBJECT_CLASS private_key = CKO_PRIVATE_KEY;
  CK_ATTRIBUTE template[] = {
      {CKA_CLASS, &private_key, sizeof private_key},
      {CKA_LABEL, (void *)key_label, strlen(key_label)},
  };
  CK_OBJECT_HANDLE found[10], key = CK_INVALID_HANDLE;
  CK_ULONG count, all = 0;
  check("C_FindObjectsInit", token->C_FindObjectsInit(session, template, 2));
  do {
    check("C_FindObjects", token->C_FindObjects(session, found, 10, &count));
    if (count > 0) key = found[0];
    all += count;
  } while (count > 0);
  check("C_FindObjectsFinal", token->C_FindObjectsFinal(session));
  need(all == 1, "the label does not name exactly one private key");

  CK_BYTE label[256], id[256], modulus[1024], exponent[16], always, sign;
  CK_KEY_TYPE type;
  CK_MECHANISM_TYPE allowed[64];
  CK_ATTRIBUTE about[] = {
      {CKA_LABEL, label, sizeof label},
      {CKA_ID, id, sizeof id},
      {CKA_KEY_TYPE, &type, sizeof type},
      {CKA_SIGN, &sign, sizeof sign},
      {CKA_ALWAYS_AUTHENTICATE, &always, sizeof always},
      {CKA_ALLOWED_MECHANISMS, allowed, sizeof allowed},
      {CKA_MODULUS, modulus, sizeof modulus}, /* of an RSA key alone */
      {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
  };
  CK_ULONG asked = mechanism.mechanism == CKM_SHA256_RSA_PKCS ? 8 : 6;
  check("C_GetAttributeValue", token->C_GetAttributeValue(session, key, about, asked));
  return key;
}

static void *work(void *argument) {
  struct seat *seat = argument;
  CK_BYTE signature[LONGEST_SIGNATURE];
  wait_until(seat->start);
  seat->begin = now();
  for (long number = 0; number < seat->count; number++) {
    CK_ULONG length = sizeof signature;
    check("C_SignInit", token->C_SignInit(seat->session, &mechanism, seat->key));
    check("C_Sign", token->C_Sign(seat->session, message, message_length, signature, &length));
  }
  seat->end = now();
  return NULL;
}

static void sign(int threads, long count, int64_t start) {
  int64_t begin = INT64_MAX, end = 0;
  for (int number = 0; number < threads; number++) {
    struct seat *seat = &seats[number];
    if (seat->session == 0) { /* it shares the login of the first one */
      check("C_OpenSession", token->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &seat->session));
      seat->key = find_key(seat->session);
    }
    seat->count = count;
    seat->start = start;
  }
  for (int number = 0; number < threads; number++)
    need(pthread_create(&seats[number].thread, NULL, work, &seats[number]) == 0, "no thread can be made");
  for (int number = 0; number < threads; number++) {
    pthread_join(seats[number].thread, NULL);
    if (seats[number].begin < begin) begin = seats[number].begin;
    if (seats[number].end > end) end = seats[number].end;
  }
  printf("%" PRId64 " %" PRId64 "\n", begin, end);
}

static void choose(const char *key, const char *algorithm) {
  int rsa = strcmp(algorithm, "RS256") == 0;
  mechanism.mechanism = rsa ? CKM_SHA256_RSA_PKCS : CKM_ECDSA;
  message_length = rsa ? MESSAGE : DIGEST;
  memset(message, 'x', sizeof message);
  key_label = strdup(key); /* a caller in Python may take its own back */
}

static void load(const char *path) {
  void *module = dlopen(path, RTLD_NOW);
  need(module != NULL, "the module cannot be loaded");
  CK_RV (*get_list)(CK_FUNCTION_LIST **);
  *(void **)&get_list = dlsym(module, "C_GetFunctionList"); /* the cast that POSIX proposes */
  need(get_list != NULL, "the module is no PKCS#11 module");
  check("C_GetFunctionList", get_list(&token));
}

static void find_slot(const char *label) {
  CK_SLOT_ID slots[64];
  CK_ULONG count = 64;
  check("C_GetSlotList", token->C_GetSlotList(CK_TRUE, slots, &count));
  for (CK_ULONG number = 0; number < count; number++) {
    CK_TOKEN_INFO info;
    check("C_GetTokenInfo", token->C_GetTokenInfo(slots[number], &info));
    size_t length = strlen(label); /* the field is padded with blanks */
    if (length < sizeof info.label && memcmp(info.label, label, length) == 0 && info.label[length] == ' ') {
      slot = slots[number];
      return;
    }
  }
  need(0, "there is no token of that label");
}

/* One row of a listing is made of this much; what an object does not have is left at -1. */
struct told {
  CK_BYTE label[512], id[512], modulus[1024], curve[64];
  CK_BBOOL sign, sensitive, extractable, never_extractable, local, always;
  CK_KEY_TYPE type;
};

/* A class of objects to its end; then each of them, and what depends on its type apart: no other key has it. */
static CK_ULONG read_all(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class) {
  static CK_OBJECT_HANDLE objects[1 << 20];
  static struct told told;
  CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class}};
  CK_ULONG count, all = 0;
  check("C_FindObjectsInit", token->C_FindObjectsInit(session, template, 1));
  do {
    check("C_FindObjects", token->C_FindObjects(session, objects + all, 16, &count));
    all += count;
    need(all + 16 <= sizeof objects / sizeof *objects, "the token holds too many objects");
  } while (count > 0);
  check("C_FindObjectsFinal", token->C_FindObjectsFinal(session));
  for (CK_ULONG number = 0; number < all; number++) {
    CK_ATTRIBUTE about[] = {
        {CKA_LABEL, told.label, sizeof told.label},
        {CKA_ID, told.id, sizeof told.id},
        {CKA_KEY_TYPE, &told.type, sizeof told.type}, /* of keys */
        {CKA_SIGN, &told.sign, sizeof told.sign},     /* of private keys, and the rest */
        {CKA_SENSITIVE, &told.sensitive, sizeof told.sensitive},
        {CKA_EXTRACTABLE, &told.extractable, sizeof told.extractable},
        {CKA_NEVER_EXTRACTABLE, &told.never_extractable, sizeof told.never_extractable},
        {CKA_LOCAL, &told.local, sizeof told.local},
        {CKA_ALWAYS_AUTHENTICATE, &told.always, sizeof told.always},
    };
    CK_ULONG asked = class == CKO_PRIVATE_KEY ? 9 : class == CKO_PUBLIC_KEY ? 3 : 2;
    check("C_GetAttributeValue", token->C_GetAttributeValue(session, objects[number], about, asked));
    if (class != CKO_PRIVATE_KEY) continue;
    CK_ATTRIBUTE size = {CKA_MODULUS, told.modulus, sizeof told.modulus};
    if (told.type == CKK_EC) size = (CK_ATTRIBUTE){CKA_EC_PARAMS, told.curve, sizeof told.curve};
    check("C_GetAttributeValue", token->C_GetAttributeValue(session, objects[number], &size, 1));
  }
  return all;
}

static void list(CK_SESSION_HANDLE session) {
  read_all(session, CKO_CERTIFICATE);
  read_all(session, CKO_PUBLIC_KEY);
  printf("%lu\n", read_all(session, CKO_PRIVATE_KEY));
}

static void log_in(const char *pin_file) {
  char pin[256];
  FILE *file = fopen(pin_file, "r");
  need(file != NULL && fgets(pin, sizeof pin, file) != NULL, "the PIN file cannot be read");
  fclose(file);
  pin[strcspn(pin, "\n")] = '\0';
  CK_SESSION_HANDLE session;
  check("C_OpenSession", token->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session));
  check("C_Login", token->C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)));
  seats[0].session = session;
}

static CK_RV (*first_init)(CK_SESSION_HANDLE, CK_ATTRIBUTE *, CK_ULONG);
static int64_t walk;

static int64_t cpu(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* SoftHSM walks through all its objects here. Whose search it is makes no difference to that, and its noise among
 * a thousand keys is many times what is to be measured around it. */
static CK_RV timed_init(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count) {
  need(count == 2, "the search is not by class and label");
  int64_t began = cpu();
  CK_RV result = first_init(session, template, count);
  walk = cpu() - began;
  return result;
}

int64_t walked(void) { return walk; }

void attach(const char *module, const char *token_label, const char *key, const char *algorithm) {
  choose(key, algorithm);
  load(module);
  find_slot(token_label);
  check("C_OpenSession", token->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &seats[0].session));
  first_init = token->C_FindObjectsInit;
  token->C_FindObjectsInit = timed_init; /* SoftHSM's function table is memory that may be written */
}

void search(void) { find_key(seats[0].session); }

int main(int count, char **words) {
  int listing = count == 5 && strcmp(words[4], "list") == 0;
  need(count == 6 || listing, "usage: loop MODULE TOKEN-LABEL PIN-FILE KEY-LABEL RS256|ES256, or list for the last two");
  if (!listing) choose(words[4], words[5]);
  load(words[1]);
  CK_C_INITIALIZE_ARGS arguments = {.flags = CKF_OS_LOCKING_OK};
  check("C_Initialize", token->C_Initialize(&arguments));
  find_slot(words[2]);
  log_in(words[3]);
  if (listing) {
    list(seats[0].session);
    return 0;
  }
  seats[0].key = find_key(seats[0].session);
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");

  char line[256];
  int threads;
  long times;
  int64_t start;
  while (fgets(line, sizeof line, stdin) != NULL) {
    need(sscanf(line, "sign %d %ld %" SCNd64, &threads, &times, &start) == 3, "a line that means nothing");
    need(threads >= 1 && threads <= MOST_THREADS, "so many threads are not provided for");
    sign(threads, times, start);
  }
  return 0;
}
