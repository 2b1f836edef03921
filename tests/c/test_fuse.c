#include "nets.h"

#include "graph/fuse.h"
#include "ops/norm.h"

/* ---- what a list looks like ---- */

static const char *const rule_names[GAP_RULE_COUNT] = {"dead", "join", "act", "bn_sums", "bn_apply", "gate", "join_back", "bn_fixed", "pool_act", "pixels", "bytes", "slices", "inplace", "share"};

static gap_status plan_under(gap_plan **p, const net *t, const gap_plan_options *o, const char *rules) {
    if (rules != NULL) setenv("GAPLESS_FUSE", rules, 1);
    const gap_status st = gap_plan_new(p, t->graph, t->store, o);
    unsetenv("GAPLESS_FUSE");
    return st;
}

/* GAPLESS_FUSE that leaves these rules alone, "join bn_sums" for one, and drops the other rewriting ones. */
static const char *only(const char *names) {
    static char text[192];
    text[0] = '\0';
    for (int k = 0; k < GAP_RULE_INPLACE; k++) {
        char spaced[32], all[128];
        snprintf(spaced, sizeof spaced, " %s ", rule_names[k]);
        snprintf(all, sizeof all, " %s ", names);
        if (strstr(all, spaced) == NULL) strcat(strcat(strcat(text, text[0] ? "," : ""), "-"), rule_names[k]);
    }
    return text;
}

static void op_text(const gap_op *op, char *text) {
    if (op->def == &gap_op_conv) {
        const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
        sprintf(text, "conv%s%s%s%s%s%s%s", f->apply ? ":apply" : "", f->apply && f->act ? ":act" : "", f->sums ? ":sums" : "",
                f->join == 0 ? "" : op->n_in - f->join == 4 ? ":masks2" : ":masks", f->fixed ? ":fixed" : "", f->residual ? ":residual" : "",
                f->out_act ? ":act" : "");
    } else if (op->def == &gap_op_affine) {
        const gap_affine_attr *a = GAP_ATTR_CONST(op, gap_affine_attr);
        sprintf(text, "affine%s%s%s%s%s", op->n_in == 4 ? ":join2" : op->n_in == 3 ? ":join" : "", a->act ? ":act" : "", a->lazy ? ":lazy" : "",
                a->residual_lazy ? ":residual_lazy" : "", a->masked ? ":masked" : "");
    } else {
        sprintf(text, "%s", op->def == &gap_op_affine_fixed ? "fixed" : op->def->name);
    }
}

/* Checks the list between the input op and the tail (flatten, linear), and frees the network. */
static void check_list(net t, bool training, const char *rules, const char *want) {
    gap_plan_options o = net_options(3, training, training ? "SGD" : NULL);
    gap_plan *p = NULL;
    char got[1024] = "", one[128];
    CHECK_OK(t.st);
    CHECK_OK(plan_under(&p, &t, &o, rules));
    for (int k = 1; p != NULL && k < p->list.n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        op_text(op, one);
        if (strcmp(one, "flatten") == 0) break;
        strcat(strcat(got, k > 1 ? " " : ""), one);
        for (int j = 0; j < op->n_in; j++) { /* what an op is told of its operands is true */
            CHECK(gap_desc_equal(&op->in_desc[j], &p->list.value[op->in[j]]));
            bool made = op->in[j] == 0;
            for (int i = 0; i < k; i++)
                for (int v = 0; v < p->list.op[i].n_out; v++) made |= p->list.op[i].out[v] == op->in[j];
            CHECK(made);
        }
        for (int j = 0; j < op->n_out; j++) CHECK(gap_desc_equal(&op->out_desc[j], &p->list.value[op->out[j]]));
    }
    if (strcmp(got, want) != 0) printf("rules %s:\n  %s\nexpected\n  %s\n", rules ? rules : "all", got, want);
    CHECK(strcmp(got, want) == 0);
    gap_plan_free(p);
    net_free(&t);
}

/* ---- the networks of the rules' tests; (c, 4, 4) images ---- */

static int conv(net *t, const char *name, int c, int to, int in) { return net_one(t, "Conv2d", name, ARGS(c, to, 3, 1, 1), in); }
static int norm(net *t, const char *name, int c, int in) { return net_one(t, "BatchNorm2d", name, ARGS(c), in); }

static net head(net t, int c, int v) {
    net_one(&t, "Linear", "head", ARGS(16 * c, 4), net_one(&t, "Flatten", "flat", NO_ARGS, v));
    net_end(&t, 3);
    return t;
}

static net net_conv_norm(int c, const char *act) {
    net t = net_begin(5, 4, 4);
    int v = norm(&t, "bn", c, conv(&t, "conv", 5, c, 0));
    return head(t, c, act != NULL ? net_one(&t, act, "act", NO_ARGS, v) : v);
}

/* conv, norm, act, conv, norm and an act behind */
static net net_two_convs(const char *act) {
    net t = net_begin(5, 4, 4);
    int v = net_one(&t, act, "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
    v = norm(&t, "bn2", 18, conv(&t, "conv2", 16, 18, v));
    return head(t, 18, net_one(&t, "ReLU", "act2", NO_ARGS, v));
}

/* stem, then conv, norm joined with the stem or with its own conv, norm; and an act behind */
static net net_join(bool downsample, bool shortcut_first, const char *act) {
    net t = net_begin(5, 4, 4);
    int stem = net_one(&t, "ReLU", "stem", NO_ARGS, conv(&t, "conv0", 5, 16, 0));
    int v = norm(&t, "bn", 16, conv(&t, "conv", 16, 16, stem));
    int w = downsample ? norm(&t, "down.bn", 16, net_one(&t, "Conv2d", "down", ARGS(16, 16, 1), stem)) : stem;
    v = shortcut_first ? net_two(&t, "Add", "add", w, v) : net_two(&t, "Add", "add", v, w);
    return head(t, 16, act != NULL ? net_one(&t, act, "act", NO_ARGS, v) : v);
}

#define BN "moments norm affine"

static void test_fuse_join(void) {
    const char *join = "join";
    check_list(net_join(false, false, NULL), true, only(""), "conv act conv " BN " add");
    check_list(net_join(false, false, NULL), true, only(join), "conv act conv moments norm affine:join");
    check_list(net_join(false, true, NULL), true, only(join), "conv act conv moments norm affine:join");
    check_list(net_join(true, false, NULL), true, only(join), "conv act conv moments norm conv moments norm affine:join2");
    check_list(net_join(true, true, NULL), true, only(join), "conv act conv moments norm conv moments norm affine:join2");
    check_list(net_join(false, false, NULL), false, only(join), "conv act conv fixed add");

    net t = net_begin(5, 4, 4); /* x + x; and a norm that somebody else reads too */
    int v = norm(&t, "bn", 5, 0);
    v = net_two(&t, "Add", "twice", v, v);
    int w = norm(&t, "bn2", 5, v);
    w = net_two(&t, "Add", "add", w, net_one(&t, "Tanh", "tanh", NO_ARGS, w));
    check_list(head(t, 5, w), true, only(join), BN " add " BN " act add");
}

/* A value that would stand in two places of one affine: its gradients must add up, so that it is one place at most. */
static void test_fuse_join_of_one_value(void) {
    net t = net_begin(5, 4, 4);
    int v = net_one(&t, "Tanh", "tanh", NO_ARGS, conv(&t, "conv", 5, 16, 0));
    check_list(head(t, 16, net_two(&t, "Add", "add", norm(&t, "bn", 16, v), v)), true, NULL, "conv act " BN " add");
    t = net_begin(5, 4, 4);
    v = net_one(&t, "Tanh", "tanh", NO_ARGS, conv(&t, "conv", 5, 16, 0));
    int a = norm(&t, "bn", 16, v), b = norm(&t, "bn2", 16, v);
    check_list(head(t, 16, net_two(&t, "Add", "add", a, b)), true, NULL, "conv act " BN " moments norm affine:join");
}

static void test_fuse_act(void) {
    const char *act = "act";
    check_list(net_conv_norm(18, "ReLU"), true, only(""), "conv " BN " act");
    check_list(net_conv_norm(18, "ReLU"), true, only(act), "conv moments norm affine:act");
    check_list(net_conv_norm(18, "SiLU"), true, only(act), "conv moments norm affine:act");
    check_list(net_conv_norm(18, "Sigmoid"), true, only(act), "conv " BN " act"); /* would make 0.5 of padding */
    check_list(net_conv_norm(18, "Hardsigmoid"), true, only(act), "conv " BN " act");
    check_list(net_conv_norm(16, "Sigmoid"), true, only(act), "conv moments norm affine:act");
    check_list(net_conv_norm(16, "ReLU"), false, only(act), "conv fixed act");
    check_list(net_join(false, false, "ReLU"), true, only("join act"), "conv act conv moments norm affine:join:act");
    check_list(net_join(false, false, "SiLU"), true, only("join act"), "conv act conv moments norm affine:join act"); /* its gradient is not in its output */
    check_list(net_join(false, false, "Tanh"), true, only("join act"), "conv act conv moments norm affine:join:act");
    net t = net_begin(5, 4, 4); /* read before the activation too; and two activations */
    int v = norm(&t, "bn", 5, 0);
    v = net_two(&t, "Add", "add", v, net_one(&t, "ReLU", "relu", NO_ARGS, v));
    v = net_one(&t, "Tanh", "t", NO_ARGS, net_one(&t, "ReLU", "r", NO_ARGS, norm(&t, "bn2", 5, v)));
    check_list(head(t, 5, v), true, only(act), BN " act add moments norm affine:act act");
}

static void test_fuse_bn_sums(void) {
    const char *sums = "bn_sums";
    check_list(net_conv_norm(18, NULL), true, only(sums), "conv:sums norm affine:lazy");
    check_list(net_conv_norm(18, "ReLU"), true, only("act bn_sums"), "conv:sums norm affine:act:lazy");
    check_list(net_join(true, false, "ReLU"), true, only("join act bn_sums"),
               "conv act conv:sums norm conv:sums norm affine:join2:act:lazy:residual_lazy");
    check_list(net_conv_norm(18, NULL), false, only(sums), "conv fixed");

    net t = net_conv_norm(18, NULL); /* a frozen convolution has no gradient to read */
    t.store->entry[gap_store_find(t.store, "conv.weight")].trainable = false;
    check_list(t, true, only(sums), "conv " BN);
    t = net_conv_norm(18, NULL);
    t.store->entry[gap_store_find(t.store, "conv.bias")].trainable = false;
    check_list(t, true, only(sums), "conv:sums norm affine:lazy");
    t = net_conv_norm(18, NULL); /* the norm's statistics are fixed then */
    for (int k = 0; k < t.store->n_entries; k++)
        if (strncmp(t.store->entry[k].name, "bn.", 3) == 0) t.store->entry[k].trainable = false;
    check_list(t, true, only(sums), "conv fixed");
    t = net_begin(5, 4, 4); /* the convolution's output is read elsewhere; it is an image; two norms of it */
    int v = conv(&t, "conv", 5, 5, norm(&t, "image", 5, 0));
    v = net_two(&t, "Mul", "mul", v, norm(&t, "bn", 5, v));
    v = conv(&t, "conv2", 5, 5, v);
    v = net_two(&t, "Mul", "mul2", norm(&t, "bn2", 5, v), norm(&t, "bn3", 5, v));
    check_list(head(t, 5, v), true, only(sums), BN " conv " BN " mul conv " BN " " BN " mul");
}

static void test_fuse_bn_apply(void) {
    const char *both = "act bn_sums bn_apply";
    check_list(net_two_convs("ReLU"), true, only(both), "conv:sums norm conv:apply:act:sums norm affine:act:lazy");
    check_list(net_two_convs("SiLU"), true, only(both), "conv:sums norm conv:apply:act:sums norm affine:act:lazy");
    check_list(net_two_convs("Identity"), true, only("bn_sums bn_apply"), "conv:sums norm conv:apply:sums norm affine:lazy act");
    check_list(net_two_convs("ReLU"), true, only("act bn_apply"), "conv moments norm affine:act conv moments norm affine:act"); /* nothing is lazy */
    net t = net_begin(5, 4, 4); /* read by two convolutions, and by one and a pool */
    int v = net_one(&t, "ReLU", "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
    v = net_two(&t, "Mul", "mul", conv(&t, "a", 16, 16, v), conv(&t, "b", 16, 16, v));
    check_list(head(t, 16, v), true, only(both), "conv:sums norm affine:act:lazy conv conv mul");
    t = net_begin(5, 4, 4); /* a frozen convolution behind reads through it all the same */
    v = net_one(&t, "ReLU", "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
    t = head(t, 16, conv(&t, "b", 16, 16, v));
    t.store->entry[gap_store_find(t.store, "b.weight")].trainable = false;
    check_list(t, true, only(both), "conv:sums norm conv:apply:act");
}

/* conv, norm, act: value z; a convolution of it, norm, joined with z or with what `shortcut` makes of it */
static net net_of_block(const char *act, int shortcut) {
    net t = net_begin(5, 4, 4);
    const int z = net_one(&t, act, "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
    const int before = shortcut == 2 ? net_one(&t, "MaxPool2d", "pool", ARGS(3, 1, 1), z) : z;
    const int u = norm(&t, "bn2", 16, conv(&t, "conv2", 16, 16, z));
    const int w = shortcut == 1 ? norm(&t, "down.bn", 16, net_one(&t, "Conv2d", "down", ARGS(16, 16, 1), z)) : before;
    const int y = net_one(&t, act, "act2", NO_ARGS, net_two(&t, "Add", "add", u, w));
    return head(t, 16, net_two(&t, "Add", "add2", conv(&t, "conv3", 16, 16, y), y));
}

static void test_fuse_join_back(void) {
    const char *back = "join act bn_sums join_back";
    check_list(net_of_block("ReLU", 0), true, only(back),
               "conv:sums norm affine:act:lazy:masked conv:sums:masks norm affine:join:act:lazy:masked conv:masks add");
    check_list(net_of_block("Tanh", 1), true, only(back),
               "conv:sums norm affine:act:lazy:masked conv:sums:masks norm conv:sums norm affine:join2:act:lazy:residual_lazy:masked conv:masks2 add");
    check_list(net_of_block("ReLU", 2), true, only(back), /* the pool is the first to read, and so the last to write */
               "conv:sums norm affine:act:lazy max_pool conv:sums norm affine:join:act:lazy:masked conv:masks add");
    check_list(net_of_block("SiLU", 0), true, only(back), /* the gradient of a joined one is not in its output */
               "conv:sums norm affine:act:lazy:masked conv:sums:masks norm affine:join:lazy act conv add");
    check_list(net_of_block("Identity", 0), true, only(back), /* nothing to mask, but sums to make */
               "conv:sums norm affine:lazy:masked conv:sums:masks norm affine:join:lazy:masked conv:masks add");
    check_list(net_of_block("ReLU", 0), true, only("join act join_back"), "conv moments norm affine:act conv moments norm affine:join:act conv add");
    check_list(net_of_block("ReLU", 0), false, only("join_back"), "conv fixed act conv fixed add act conv add");
    net t = net_of_block("ReLU", 1); /* a frozen branch reads no gradient through its norm; a frozen reader masks all the same */
    t.store->entry[gap_store_find(t.store, "down.weight")].trainable = false;
    t.store->entry[gap_store_find(t.store, "conv2.weight")].trainable = false;
    check_list(t, true, only(back), "conv:sums norm affine:act:lazy:masked conv:masks moments norm conv moments norm affine:join2:act conv add");
    t = net_begin(5, 4, 4); /* read first by what no gradient comes through, as nothing but its running statistics is wanted */
    int z = net_one(&t, "ReLU", "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
    norm(&t, "aside", 16, conv(&t, "conv2", 16, 16, z));
    check_list(head(t, 16, conv(&t, "conv3", 16, 16, z)), true, only("dead act bn_sums join_back"), "conv:sums norm affine:act:lazy conv moments norm conv");
    t = net_begin(5, 4, 4); /* in two places of the convolution that reads it first: as its gate too */
    z = net_one(&t, "ReLU", "act", NO_ARGS, norm(&t, "bn", 16, net_one(&t, "Conv2d", "conv", ARGS(5, 16, 4), 0)));
    z = net_one(&t, "Conv2d", "c2", ARGS(16, 16, 1), net_two(&t, "Mul", "mul", z, z));
    net_one(&t, "Linear", "head", ARGS(16, 4), net_one(&t, "Flatten", "flat", NO_ARGS, z));
    net_end(&t, 3);
    check_list(t, true, only("act bn_sums gate join_back"), "conv:sums norm affine:act:lazy mul conv");
    t = net_of_block("ReLU", 0); /* ops that run twice */
    gap_plan_options o = net_options(3, true, "SGD");
    const char *again[] = {"conv2"};
    gap_plan *p = NULL;
    o.recompute = again, o.n_recompute = 1;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    for (int k = 0; p != NULL && k < p->list.n_ops; k++)
        if (p->list.op[k].def == &gap_op_conv) CHECK(GAP_ATTR_CONST(&p->list.op[k], gap_conv_attr)->fuse.join == 0);
    gap_plan_free(p);
    net_free(&t);
}

static void test_fuse_bn_fixed(void) {
    const char *fixed = "bn_fixed";
    check_list(net_conv_norm(18, "ReLU"), false, only(fixed), "conv:fixed:act");
    check_list(net_conv_norm(18, NULL), false, only(fixed), "conv:fixed");
    check_list(net_conv_norm(18, "Sigmoid"), false, only(fixed), "conv:fixed act");
    check_list(net_conv_norm(16, "Sigmoid"), false, only(fixed), "conv:fixed:act");
    check_list(net_join(false, false, "SiLU"), false, only(fixed), "conv act conv:fixed:residual:act");
    check_list(net_join(false, true, "SiLU"), false, only(fixed), "conv act conv:fixed:residual:act");
    check_list(net_join(true, false, "ReLU"), false, only(fixed), "conv act conv:fixed conv:fixed:residual:act"); /* the later one joins */
    check_list(net_conv_norm(18, "ReLU"), true, only(fixed), "conv " BN " act");
    net t = net_begin(5, 4, 4); /* the shortcut is made after the convolution; and a norm that is read twice */
    int v = norm(&t, "bn", 5, conv(&t, "conv", 5, 5, 0));
    v = net_two(&t, "Add", "add", v, net_one(&t, "MaxPool2d", "pool", ARGS(3, 1, 1), 0));
    int w = norm(&t, "bn2", 5, conv(&t, "conv2", 5, 5, v));
    w = net_two(&t, "Mul", "mul", w, net_one(&t, "ReLU", "relu", NO_ARGS, w));
    check_list(head(t, 5, w), false, only(fixed), "conv:fixed max_pool add conv:fixed act mul");
    t = net_begin(5, 4, 4); /* the image itself is the shortcut; x + x is not one; nothing before a norm of the image */
    v = net_two(&t, "Add", "add", norm(&t, "bn", 5, conv(&t, "conv", 5, 5, 0)), 0);
    v = norm(&t, "bn2", 5, conv(&t, "conv2", 5, 5, v));
    v = norm(&t, "bn3", 5, net_two(&t, "Add", "twice", v, v));
    check_list(head(t, 5, v), false, only(fixed), "conv:fixed:residual conv:fixed add fixed");
}

static void test_fuse_leaves_outputs_and_other_kernels_alone(void) {
    for (int k = 0; k < 2; k++) { /* a convolution, or a norm, that is an output of the network */
        net t = net_begin(5, 4, 4);
        int v = conv(&t, "conv", 5, 16, 0), w = norm(&t, "bn", 16, v);
        net_one(&t, "ReLU", "act", NO_ARGS, w);
        const int outputs[] = {k ? w : v, t.last};
        CHECK_OK(gap_graph_set_outputs(t.graph, outputs, 2));
        CHECK_OK(gap_store_init(t.store, 1));
        gap_plan_options o = net_options(2, false, NULL);
        o.loss = NULL;
        float got[2][2 * 256], want[2][2 * 256];
        static batch b;
        batch_make(&b, &t, 2, 1);
        for (int rules = 0; rules < 2; rules++) {
            gap_plan *p = NULL;
            CHECK_OK(plan_under(&p, &t, &o, rules ? "-all" : NULL));
            CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){rules ? want[0] : got[0], rules ? want[1] : got[1]}));
            const gap_conv_fuse *f = &GAP_ATTR_CONST(&p->list.op[1], gap_conv_attr)->fuse;
            CHECK(f->fixed == (k == 1 && rules == 0) && f->out_act == GAP_ACT_NONE);
            gap_plan_free(p);
        }
        CHECK(memcmp(got, want, sizeof got) == 0);
        net_free(&t);
    }
    net t = net_two_convs("ReLU");
    gap_plan_options o = net_options(3, true, "SGD");
    gap_plan *p = NULL;
    if (gap_kernels_find(&o.kernels, "blas") == GAP_OK) { /* it computes whole matrices: nothing on load, nothing on store */
        CHECK_OK(plan_under(&p, &t, &o, NULL));
        for (int k = 0; k < p->list.n_ops; k++) {
            const gap_op *op = &p->list.op[k];
            if (op->def == &gap_op_conv) CHECK(op->n_in == 1 && op->n_out == 1);
            if (op->def == &gap_op_affine) CHECK(!GAP_ATTR_CONST(op, gap_affine_attr)->lazy && GAP_ATTR_CONST(op, gap_affine_attr)->act == GAP_ACT_RELU);
        }
        gap_plan_free(p);
    }
    net_free(&t);
}

static void test_fuse_rules_are_read(void) {
    unsigned rules;
    static const struct { const char *text; unsigned want; } good[] = {
        {"", ~0u}, {"-join", ~(1u << GAP_RULE_JOIN)}, {"-all", 0}, {"-bn_sums,-act", ~(1u << GAP_RULE_BN_SUMS | 1u << GAP_RULE_ACT)},
        {"-dead, -share", ~(1u << GAP_RULE_DEAD | 1u << GAP_RULE_SHARE)}, {",-inplace,", ~(1u << GAP_RULE_INPLACE)},
    };
    static const char *const bad[] = {"join", "-joi", "-joins", "-", "-join,act", "all", "--all"};
    for (int k = 0; k < GAP_COUNTOF(good); k++) {
        setenv("GAPLESS_FUSE", good[k].text, 1);
        CHECK_OK(gap_fuse_rules(&rules));
        CHECK(rules == good[k].want);
    }
    for (int k = 0; k < GAP_COUNTOF(bad); k++) {
        setenv("GAPLESS_FUSE", bad[k], 1);
        CHECK_FAILS(gap_fuse_rules(&rules), GAP_ERR_VALUE);
        for (int r = 0; r < GAP_RULE_COUNT; r++) CHECK(strstr(gap_error_message(), rule_names[r]) != NULL);
    }
    unsetenv("GAPLESS_FUSE");
}

/* ---- gradients made in place ---- */

static bool shares(const gap_plan *p, int a, int b) { return p->value[a].gradient == p->value[b].gradient; }

/* In a chain of blocks the gradient of a join, of its branch and of its shortcut are one buffer. */
static void test_fuse_chain_of_joins_hands_one_gradient_through(void) {
    for (int off = 0; off < 2; off++) {
        net t = net_begin(5, 4, 4);
        int v = net_one(&t, "ReLU", "act", NO_ARGS, norm(&t, "bn", 16, conv(&t, "conv", 5, 16, 0)));
        for (int k = 0; k < 4; k++) {
            char a[16], b[16], c[16], d[16];
            snprintf(a, 16, "a%d", k), snprintf(b, 16, "b%d", k), snprintf(c, 16, "c%d", k), snprintf(d, 16, "d%d", k);
            int u = net_one(&t, "ReLU", "r", NO_ARGS, norm(&t, b, 16, conv(&t, a, 16, 16, v)));
            u = norm(&t, d, 16, conv(&t, c, 16, 16, u));
            v = net_one(&t, "ReLU", "r2", NO_ARGS, net_two(&t, "Add", "add", u, v));
        }
        t = head(t, 16, v);
        gap_plan_options o = net_options(3, true, "SGD");
        gap_plan *p = NULL;
        int joins = 0;
        CHECK_OK(plan_under(&p, &t, &o, off ? "-inplace" : NULL));
        for (int k = 0; k < p->list.n_ops; k++) {
            const gap_op *op = &p->list.op[k];
            if (op->def != &gap_op_affine || op->n_in != 3) continue;
            joins++;
            CHECK(shares(p, op->out[0], op->in[GAP_AFFINE_X]) == !off);
            CHECK(shares(p, op->out[0], op->in[GAP_AFFINE_RESIDUAL]) == !off);
        }
        CHECK(joins == 4);
        gap_plan_free(p);
        net_free(&t);
    }
}

/* ---- the same numbers ---- */

typedef struct { float *gradient; float loss, out[NET_BATCH * 8]; snapshot state; size_t n; } outcome;

static void outcome_free(outcome *r) {
    free(r->gradient);
    free(r->state.bytes);
}

/* A step on n of `capacity` samples, its gradients; then another; then an evaluation, all under the same rules. */
static outcome run(net t, const char *rules, int64_t capacity, int64_t n, bool poison) {
    outcome r = {.n = t.store->floats};
    gap_plan_options o = net_options(capacity, true, "SGD");
    gap_plan *train = NULL, *eval = NULL;
    static batch b;
    CHECK_OK(t.st);
    CHECK_OK(plan_under(&train, &t, &o, rules));
    for (uint32_t k = 0; k < 2; k++) {
        if (poison) memset(train->arena, 0xff, train->arena_bytes), train->derived_version = 0;
        CHECK_OK(net_step(train, &t, k ? capacity : n, k, 0.01, -1, 1.0));
        if (k > 0) continue;
        r.loss = train->loss[0];
        r.gradient = net_gradients(train, t.store);
    }
    r.state = snapshot_take(t.store);
    o.training = false;
    CHECK_OK(plan_under(&eval, &t, &o, rules));
    if (poison) memset(eval->arena, 0xff, eval->arena_bytes);
    batch_make(&b, &t, n, 9);
    CHECK_OK(gap_plan_forward(eval, n, b.x, (float *const[4]){r.out}));
    gap_plan_free(train);
    gap_plan_free(eval);
    return r;
}

static double largest(const float *a, size_t n) {
    double m = 0;
    for (size_t k = 0; k < n; k++) m = fmax(m, fabs((double)a[k]));
    return m;
}

/* Every weight's gradient, the weights after two steps and the output agree, each within `tolerance` of its largest element
 * (a tenth of the largest of all gradients, where all is cancellation: a bias before BatchNorm). */
static bool agree(const char *what, const net *t, const outcome *a, const outcome *b, double tolerance) {
    bool good = a->loss == b->loss; /* forward is the same bits: nothing is rounded elsewhere */
    const double all = largest(b->gradient, b->n);
    const float *const wa = (const float *)(void *)a->state.bytes, *const wb = (const float *)(void *)b->state.bytes;
    if (!good) printf("%s: first loss %.9g, expected %.9g\n", what, (double)a->loss, (double)b->loss);
    for (int e = 0; e < t->store->n_entries; e++) {
        const gap_entry *entry = &t->store->entry[e];
        double worst = 0, moved = 0;
        const double g = fmax(largest(b->gradient + entry->offset, entry->count), 0.1 * all), w = fmax(largest(wb + entry->offset, entry->count), 0.05);
        for (size_t k = entry->offset; k < entry->offset + entry->count; k++) {
            worst = fmax(worst, fabs((double)a->gradient[k] - (double)b->gradient[k]) / g);
            moved = fmax(moved, fabs((double)wa[k] - (double)wb[k]) / w);
            if (!isfinite(a->gradient[k]) || !isfinite(wa[k])) worst = HUGE_VAL;
        }
        if (worst <= tolerance && moved <= tolerance) continue;
        printf("%s: %s: gradients differ by %.2g, weights by %.2g\n", what, entry->name, worst, moved);
        good = false;
    }
    const double out = largest(b->out, GAP_COUNTOF(b->out));
    for (size_t k = 0; k < GAP_COUNTOF(a->out); k++)
        if (!(fabs((double)a->out[k] - (double)b->out[k]) <= tolerance * out)) {
            printf("%s: output %zu is %.9g, expected %.9g\n", what, k, (double)a->out[k], (double)b->out[k]);
            good = false;
            break;
        }
    return good;
}

/* conv -> act -> max_pool -> max_pool */
static net net_pooled(const char *act) {
    net t = net_begin(5, 9, 9);
    int v = net_one(&t, act, "act", NO_ARGS, conv(&t, "conv", 5, 18, 0));
    v = net_one(&t, "MaxPool2d", "pool", ARGS(3, 2, 1), v);
    return head(t, 18, net_one(&t, "MaxPool2d", "pool2", ARGS(2, 1), v));
}

static void test_fuse_pool_act(void) {
    check_list(net_pooled("ReLU"), true, only("pool_act"), "conv max_pool max_pool act");
    check_list(net_pooled("ReLU6"), false, only("pool_act"), "conv max_pool max_pool act");
    check_list(net_pooled("Tanh"), true, only("pool_act"), "conv act max_pool max_pool");
    check_list(net_pooled("ReLU"), true, "-all", "conv act max_pool max_pool");
    net t = net_begin(5, 4, 4); /* read twice: it stays */
    int v = net_one(&t, "ReLU", "relu", NO_ARGS, conv(&t, "conv", 5, 5, 0));
    v = net_two(&t, "Add", "add", v, net_one(&t, "MaxPool2d", "pool", ARGS(3, 1, 1), v));
    check_list(head(t, 5, v), true, only("pool_act"), "conv act max_pool add");
    for (int six = 0; six < 2; six++) { /* to the bit, gradients too */
        net a = net_pooled(six ? "ReLU6" : "ReLU"), b = net_pooled(six ? "ReLU6" : "ReLU");
        outcome with = run(a, only("pool_act"), 5, 3, true), without = run(b, "-all", 5, 3, true);
        CHECK(with.n == without.n && memcmp(with.gradient, without.gradient, with.n * sizeof *with.gradient) == 0);
        CHECK(with.loss == without.loss);
        outcome_free(&with), outcome_free(&without);
        net_free(&a), net_free(&b);
    }
}

/* Seven ways to make a part of a concatenation; what is read twice, and what does not fill its last block, is copied there. */
static net net_branches(bool odd) {
    net t = net_begin(5, 9, 9);
    const int v = net_one(&t, "ReLU", "r0", NO_ARGS, norm(&t, "bn0", 32, conv(&t, "c0", 5, 32, 0)));
    int part[9], n = 0;
    part[n++] = net_one(&t, "Conv2d", "pointwise", ARGS(32, 48, 1), v);
    part[n++] = net_one(&t, "ReLU6", "r1", NO_ARGS, norm(&t, "bn1", 16, conv(&t, "c1", 32, 16, v)));
    part[n++] = net_one(&t, "Hardswish", "r2", NO_ARGS, net_one(&t, "Conv2d", "depthwise", ARGS(32, 32, 5, 1, 2, 1, 32), v));
    part[n++] = net_one(&t, "MaxPool2d", "max", ARGS(3, 1, 1), v);
    part[n++] = net_one(&t, "AvgPool2d", "avg", ARGS(3, 1, 1), v);
    part[n++] = net_one(&t, "Tanh", "r3", NO_ARGS, net_one(&t, "Conv2d", "direct", ARGS(32, 16, 3, 1, 2, 2, 2), v));
    part[n++] = net_one(&t, "Conv2d", "grouped", ARGS(32, 32, 3, 1, 1, 1, 8), v);
    part[n++] = v;
    if (odd) part[n++] = conv(&t, "c2", 32, 7, v);
    const int all = net_add(&t, "Concat", "cat", NO_ARGS, part, n), c = 240 + (odd ? 7 : 0);
    return head(t, 20, net_one(&t, "MaxPool2d", "pool", ARGS(3, 2), norm(&t, "bn4", 20, conv(&t, "c4", c, 20, all))));
}

static net net_made(int which) {
    net t;
    if (which == 0) {
        t = net_everything(0.3);
        net_end(&t, 9);
        return t;
    }
    if (which == 1) return net_two_convs("Hardswish");
    if (which == 2) return net_join(true, false, "ReLU6");
    if (which == 3) return net_join(false, true, "Tanh");
    if (which == 4) return net_branches(true);
    return net_random((uint32_t)which);
}

/* The bits of inputs that stand in the plan's concatenation. */
static unsigned slices_of(const gap_plan *p) {
    unsigned found = 0;
    for (int k = 0; k < p->list.n_ops; k++)
        for (int j = 0; j < p->list.op[k].n_in; j++)
            if (gap_concat_slice(&p->list.op[k], j) >= 0) found |= 1u << j;
    return found;
}

static void test_fuse_slices_are_made_where_the_concatenation_has_them(void) {
    for (int odd = 0; odd < 2; odd++) {
        size_t bytes[2] = {0};
        for (int off = 0; off < 2; off++)
            for (int training = 0; training < 2; training++) {
                net t = net_branches(odd);
                gap_plan_options o = net_options(5, training, training ? "SGD" : NULL);
                gap_plan *p = NULL;
                CHECK_OK(t.st);
                CHECK_OK(plan_under(&p, &t, &o, off ? "-slices" : NULL));
                CHECK(slices_of(p) == (off ? 0 : 0x7f)); /* not those read twice or of 7 channels */
                if (training) bytes[off] = p->arena_alive;
                gap_plan_free(p);
                if (training && !off) { /* ops that run twice write to places of their own */
                    const char *again[] = {"c1"};
                    o.recompute = again, o.n_recompute = 1;
                    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
                    CHECK(slices_of(p) == 0);
                    gap_plan_free(p);
                }
                net_free(&t);
            }
        CHECK(bytes[0] < bytes[1]);
        net a = net_branches(odd), b = net_branches(odd);
        outcome with = run(a, NULL, 5, 3, true), without = run(b, "-slices", 5, 3, true);
        CHECK(memcmp(with.gradient, without.gradient, with.n * sizeof *with.gradient) == 0);
        CHECK(snapshot_equal(&with.state, &without.state));
        CHECK(with.loss == without.loss && memcmp(with.out, without.out, sizeof with.out) == 0);
        CHECK(isfinite(with.loss) && largest(with.gradient, with.n) > 0);
        outcome_free(&with), outcome_free(&without);
        net_free(&a), net_free(&b);
    }
}

/* Two convolutions that read the image, of `c` channels; their kernels by `which`. */
static net net_of_image(int c, int which) {
    static const double kernel[][5] = {{3, 1, 1, 1}, {5, 1, 2, 1}, {1, 1, 0, 1}, {3, 1, 2, 2}};
    const double *a = kernel[which], *b = kernel[(which + 1) % 4];
    net t = net_begin(c, 9, 11);
    const int v = norm(&t, "bn", 18, net_one(&t, "Conv2d", "a", ARGS(c, 18, a[0], a[1], a[2], a[3]), 0));
    const int w = net_one(&t, "Conv2d", "b", ARGS(c, 18, b[0], b[1], b[2], b[3]), 0);
    const int u = net_one(&t, "Conv2d", "c", ARGS(18, 4, 9, 2, 0), net_two(&t, "Add", "add", v, w));
    net_one(&t, "Linear", "head", ARGS(8, 4), net_one(&t, "Flatten", "flat", NO_ARGS, u));
    net_end(&t, 3);
    return t;
}

/* To the bit, in every kernel set; the batch's memory is taken for pixels. */
static void test_fuse_bytes_are_normalised_where_they_are_loaded(void) {
    static const int channels[] = {1, 3, 5, 8, 9};
    static const char *const sets[] = {"avx512", "avx2", "ref"};
    for (int k = 0; k < 4 * GAP_COUNTOF(channels); k++) {
        const int c = channels[k / 4];
        snapshot after[2];
        float out[2][3 * 4];
        size_t alive[2];
        for (int off = 0; off < 2; off++) {
            net t = net_of_image(c, k % 4);
            gap_plan_options o = net_options(3, true, "SGD");
            gap_plan *p = NULL;
            static batch b;
            o.input_dtype = GAP_U8;
            if (off || gap_kernels_find(&o.kernels, sets[k % 3]) != GAP_OK) o.kernels = NULL; /* without the rule: the best set */
            if (k % 2)
                for (o.input.n = 0; o.input.n < c; o.input.n++) o.input.a[o.input.n] = 0.01f * (float)(1 + o.input.n), o.input.b[o.input.n] = -0.3f;
            CHECK_OK(t.st);
            CHECK_OK(plan_under(&p, &t, &o, off ? "-bytes" : NULL));
            CHECK((p->list.op[0].def == &gap_op_input) == (off || c > GAP_PIXEL_CHANNELS));
            alive[off] = p->arena_alive;
            memset(p->arena, 0xff, p->arena_bytes);
            for (uint32_t step = 0; step < 2; step++) CHECK_OK(net_step(p, &t, 3 - step, step, 0.01, -1, 0));
            after[off] = snapshot_take(t.store);
            gap_plan_free(p);
            o.training = false;
            CHECK_OK(plan_under(&p, &t, &o, off ? "-bytes" : NULL));
            batch_make(&b, &t, 3, 9);
            CHECK_OK(gap_plan_forward(p, 3, b.x, (float *const[4]){out[off]}));
            gap_plan_free(p);
            net_free(&t);
        }
        if (!snapshot_equal(&after[0], &after[1])) printf("%d channels, kernels %d:\n", c, k % 4);
        CHECK(snapshot_equal(&after[0], &after[1]));
        CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0 && isfinite(out[0][0]));
        CHECK(c > GAP_PIXEL_CHANNELS ? alive[0] == alive[1] : alive[0] < alive[1]);
        free(after[0].bytes), free(after[1].bytes);
    }
}

static void test_fuse_every_rule_alone_changes_nothing_but_rounding(void) {
    for (int which = 0; which < 12; which++) {
        net t = net_made(which);
        outcome want = run(t, "-all", 5, 3, false);
        for (int k = -1; k < GAP_RULE_COUNT; k++) {
            char rules[32] = "", what[64];
            if (k >= 0) snprintf(rules, sizeof rules, "-%s", rule_names[k]);
            net again = net_made(which);
            outcome got = run(again, rules, 5, 3, false);
            snprintf(what, sizeof what, "network %d, rules \"%s\"", which, rules);
            CHECK(agree(what, &t, &got, &want, 1e-5));
            outcome_free(&got);
            net_free(&again);
        }
        outcome_free(&want);
        net_free(&t);
    }
}

static void test_fuse_random_networks_agree_with_plain_ones(void) {
    int fused = 0;
    for (uint32_t seed = 100; seed < 200; seed++) {
        char what[32];
        snprintf(what, sizeof what, "network %u", seed);
        net t = net_random(seed), again = net_random(seed);
        const int64_t n = 1 + seed % 5; /* one to a full batch: short ones, and one sample of many pixels */
        outcome want = run(t, "-all", 5, n, false), got = run(again, NULL, 5, n, true);
        CHECK(agree(what, &t, &got, &want, 1e-5));
        fused += memcmp(got.gradient, want.gradient, got.n * sizeof *got.gradient) != 0;
        outcome_free(&want), outcome_free(&got);
        net_free(&t), net_free(&again);
    }
    CHECK(fused > 50); /* most have what rules look for */
}

static void test_fuse_random_networks_give_the_same_bits_everywhere(void) {
    static const char *const sets[] = {"ref", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 7};
    for (uint32_t seed = 200; seed < 214; seed++) { /* the last two: concatenations */
        snapshot want = {0};
        for (int k = 0; k < GAP_COUNTOF(sets) * GAP_COUNTOF(threads); k++) {
            gap_plan_options o = net_options(4, true, "AdamW");
            gap_plan *p = NULL;
            if (gap_kernels_find(&o.kernels, sets[k / 4]) != GAP_OK || (k / 4 == 0 && k % 4 > 1)) continue; /* the reference is slow */
            net t = seed < 212 ? net_random(seed) : net_branches(seed == 213);
            CHECK_OK(gap_threads_set(threads[k % 4]));
            CHECK_OK(plan_under(&p, &t, &o, NULL));
            for (uint32_t step = 0; step < 2; step++) CHECK_OK(net_step(p, &t, 4 - step, step, 0.01, -1, 0));
            snapshot got = snapshot_take(t.store);
            if (want.bytes == NULL) want = got;
            else {
                if (!snapshot_equal(&want, &got)) printf("network %u, %s, %d threads:\n", seed, sets[k / 4], threads[k % 4]);
                CHECK(snapshot_equal(&want, &got));
                free(got.bytes);
            }
            gap_plan_free(p);
            net_free(&t);
        }
        free(want.bytes);
    }
    CHECK_OK(gap_threads_set(2));
}

/* Large planes: sums in several pieces, convolutions in several bands and units. */
static net net_large(void) {
    net t = net_begin(3, 18, 18);
    int v = net_one(&t, "Conv2d", "stem", ARGS(3, 24, 3, 1, 1, 1, 1, 0), 0);
    v = net_one(&t, "ReLU", "r0", NO_ARGS, norm(&t, "bn0", 24, v));
    int u = net_one(&t, "Hardswish", "r1", NO_ARGS, norm(&t, "bn1", 48, net_one(&t, "Conv2d", "c1", ARGS(24, 48, 1, 1, 0, 1, 1, 0), v)));
    u = net_one(&t, "ReLU6", "r2", NO_ARGS, norm(&t, "bn2", 48, net_one(&t, "Conv2d", "c2", ARGS(48, 48, 5, 1, 2, 1, 48, 0), u)));
    u = norm(&t, "bn3", 24, net_one(&t, "Conv2d", "c3", ARGS(48, 24, 1, 1, 0, 1, 1, 0), u));
    v = net_one(&t, "ReLU", "r3", NO_ARGS, net_two(&t, "Add", "add", u, v));
    u = norm(&t, "bn4", 40, net_one(&t, "Conv2d", "c4", ARGS(24, 40, 3, 2, 1, 1, 4, 0), v));
    v = norm(&t, "bn5", 40, net_one(&t, "Conv2d", "c5", ARGS(24, 40, 1, 2, 0), v));
    v = net_one(&t, "ReLU", "r4", NO_ARGS, net_two(&t, "Add", "add2", u, v));
    v = net_one(&t, "SiLU", "r5", NO_ARGS, norm(&t, "bn6", 16, net_one(&t, "Conv2d", "c6", ARGS(40, 16, 3, 3, 2, 2), v)));
    net_one(&t, "Linear", "head", ARGS(16, 4), net_one(&t, "Flatten", "flat", NO_ARGS, net_one(&t, "AdaptiveAvgPool2d", "pool", ARGS(1), v)));
    net_end(&t, 3);
    return t;
}

static void test_fuse_large_planes_agree(void) {
    static const int64_t n[] = {1, 3, NET_BATCH};
    for (int k = 0; k < GAP_COUNTOF(n); k++) {
        net t = net_large(), again = net_large();
        CHECK_OK(t.st);
        outcome want = run(t, "-all", NET_BATCH, n[k], false), got = run(again, NULL, NET_BATCH, n[k], true);
        CHECK(agree("large planes", &t, &got, &want, 1e-5));
        CHECK(memcmp(got.out, want.out, sizeof got.out) == 0 || memcmp(got.state.bytes, want.state.bytes, got.state.size) != 0);
        outcome_free(&want), outcome_free(&got);
        net_free(&t), net_free(&again);
    }
}

/* In evaluation nothing is rounded elsewhere: the very same bits. */
static void test_fuse_evaluation_is_the_same_bits(void) {
    for (int which = 0; which < 40; which++) {
        net t = which == 5 ? net_large() : net_made(which);
        gap_plan_options o = net_options(4, false, NULL);
        float out[2][4 * 8] = {{0}};
        static batch b;
        CHECK_OK(t.st);
        for (int e = 0; e < t.store->n_entries; e++) /* statistics that are not 0 and 1 */
            if (t.store->entry[e].decl.kind == GAP_WEIGHT_BUFFER)
                for (size_t k = 0; k < t.store->entry[e].count; k++) gap_store_data(t.store, GAP_PLANE_MASTER, e)[k] += 0.01f * (float)(k % 7);
        batch_make(&b, &t, 4, 1);
        for (int k = 0; k < 2; k++) {
            gap_plan *p = NULL;
            CHECK_OK(plan_under(&p, &t, &o, k ? "-all" : NULL));
            CHECK_OK(gap_plan_forward(p, 4, b.x, (float *const[4]){out[k]}));
            gap_plan_free(p);
        }
        if (memcmp(out[0], out[1], sizeof out[0]) != 0) printf("network %d:\n", which);
        CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
        net_free(&t);
    }
}

static void test_fuse_survives_every_failed_allocation(void) {
    net t = net_large();
    gap_plan_options o = net_options(2, true, "SGD");
    CHECK_OK(t.st);
    int k = 1;
    for (; k < 500; k++) {
        gap_plan *p = NULL;
        const int64_t live = gap_memory_live();
        gap_memory_fail_after(k);
        const gap_status st = gap_plan_new(&p, t.graph, t.store, &o);
        gap_memory_fail_after(0);
        gap_plan_free(p);
        if (st == GAP_OK) break;
        CHECK(st == GAP_ERR_MEMORY && p == NULL && gap_memory_live() == live);
        if (st != GAP_ERR_MEMORY) break;
    }
    CHECK(k > 15 && k < 500);
    net_free(&t);
}

int main(void) {
    RUN(test_fuse_rules_are_read);
    RUN(test_fuse_join);
    RUN(test_fuse_join_of_one_value);
    RUN(test_fuse_act);
    RUN(test_fuse_bn_sums);
    RUN(test_fuse_bn_apply);
    RUN(test_fuse_join_back);
    RUN(test_fuse_pool_act);
    RUN(test_fuse_bytes_are_normalised_where_they_are_loaded);
    RUN(test_fuse_slices_are_made_where_the_concatenation_has_them);
    RUN(test_fuse_bn_fixed);
    RUN(test_fuse_leaves_outputs_and_other_kernels_alone);
    RUN(test_fuse_chain_of_joins_hands_one_gradient_through);
    RUN(test_fuse_every_rule_alone_changes_nothing_but_rounding);
    RUN(test_fuse_random_networks_agree_with_plain_ones);
    RUN(test_fuse_random_networks_give_the_same_bits_everywhere);
    RUN(test_fuse_large_planes_agree);
    RUN(test_fuse_evaluation_is_the_same_bits);
    RUN(test_fuse_survives_every_failed_allocation);
    return harness_end();
}
