package wire

import (
	"encoding/base64"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
)

// Names of header keys that have a meaning on the wire, beside those in package transport.
const (
	HeaderStatus          = "status"           // HTTP status of a reply, or a finer one for an error: three digits
	HeaderLocation        = "location"         // URL of what was created, or of a pending result
	HeaderETag            = "etag"             // entity tag, with its quotes
	HeaderCursor          = "cursor"           // of an error: the cursor to go on from
	HeaderProblemType     = "problem-type"     // of an error: type member of a foreign problem document
	HeaderProblemInstance = "problem-instance" // of an error: instance member of a problem document
	PrefixTrailer         = "grpc-trailer-"    // begins the key of what gRPC has in its trailers
	PrefixAttribute       = "ce-"              // begins the key of a CloudEvents attribute
)

// FieldHeader is the HTTP field of calls that carries what has no field of its own. See [SetHeader].
const FieldHeader = "Intermodal-Header"

// AttributeHeader is the CloudEvents attribute of the same content. See [AppendEvent].
const AttributeHeader = "intermodalheader"

// peerFields are the HTTP fields that tell of the peer, of the connection or of the HTTP message instead of the request.
// Priority and TTL are here as HTTP gives them another meaning than we do (RFC 9218, RFC 8030), Close as Connection: close
// must not name a field of ours, Pragma as net/http turns it into Cache-Control.
var peerFields = func() map[string]bool {
	m := map[string]bool{}
	for _, s := range []string{
		// credentials and cookies
		"authorization www-authenticate authentication-info cookie cookie2 set-cookie set-cookie2 dpop",
		"api-key x-api-key x-auth-token x-access-token x-csrf-token x-xsrf-token signature signature-input",
		// the connection and the hop
		"connection close keep-alive te trailer transfer-encoding upgrade http2-settings expect max-forwards early-data",
		"host content-length content-encoding accept-encoding alt-svc alt-used date server x-powered-by priority ttl status pragma",
		"grpc-timeout grpc-encoding grpc-accept-encoding grpc-status grpc-message grpc-status-details-bin",
		"connect-timeout-ms connect-protocol-version",
		// who is there, and the way that the message took
		"user-agent origin referer via forwarded x-real-ip true-client-ip cf-connecting-ip",
		// what browsers and servers settle among themselves
		"dnt upgrade-insecure-requests timing-allow-origin x-content-type-options x-frame-options x-xss-protection",
		"strict-transport-security content-security-policy nel report-to",
	} {
		for _, name := range strings.Fields(s) {
			m[name] = true
		}
	}
	return m
}()

var peerPrefixes = []string{"proxy-", "sec-", "x-forwarded-", "access-control-", "cross-origin-"}

// PeerField reports whether the HTTP field of that name belongs to the peer and not to the message: credentials,
// cookies, hop-by-hop fields, the path that a request took, and so on. Case does not matter. Such a field stands in
// Peer.Header and never in Message.Header; an option that lists fields to be passed on must refuse it.
func PeerField(name string) bool {
	k := strings.ToLower(name)
	return peerFields[k] || slices.ContainsFunc(peerPrefixes, func(p string) bool { return strings.HasPrefix(k, p) })
}

// SetHeader puts h into the fields of an HTTP request or reply that is a call's. [SplitHeader] gets every legal header
// back exactly. A key becomes the field of the same name, one line for each value, if all of this holds:
//
//   - it has only letters, digits and hyphens: intermediaries drop fields with dots and underscores;
//   - it is no [PeerField]: a message cannot set Authorization, Cookie, Host or Content-Length;
//   - its values are visible ASCII, where spaces may stand inside, and none is empty. Values of a -bin key can be any
//     that are not empty: they are written in base64 without padding, as in gRPC. Content-type and idempotency-key
//     have one value; the latter is quoted as its draft standard wants it.
//
// All other keys are in the field [FieldHeader], in the form of [AppendHeaderList]. So no CR, LF or NUL gets into a
// field. Fields of dst that h does not name stay. A key in except is left out: the caller says it in another way.
//
// Without a content-type in h and dst, dst gets an entry without values, which keeps net/http from guessing one.
func SetHeader(dst http.Header, h transport.Header, except ...string) {
	var list []byte
	keys := make([]string, 0, 16)
	for _, k := range sortedKeys(keys, h) {
		if slices.Contains(except, k) {
			continue
		}
		if !setField(dst, k, h[k]) {
			list = appendPairs(list, 0, k, h[k])
		}
	}
	delete(dst, FieldHeader)
	if list != nil {
		dst[FieldHeader] = []string{string(list)}
	}
	if _, ok := dst["Content-Type"]; !ok {
		dst["Content-Type"] = nil
	}
}

// setField sets the field that is named like key, if it can hold the values.
func setField(dst http.Header, key string, values []string) bool {
	if f, ok := fields[canonicals[key]]; ok && f.peer || !ok && (!fieldName(key) || PeerField(key)) || key == fieldHeaderKey {
		return false
	}
	bin := isBin(key)
	for _, v := range values {
		if v == "" || !bin && !plain(v) {
			return false
		}
	}
	switch {
	case bin:
		enc := make([]string, len(values))
		for i, v := range values {
			enc[i] = base64.RawStdEncoding.EncodeToString([]byte(v))
		}
		values = enc
	case key == transport.HeaderIdempotencyKey:
		if len(values) != 1 {
			return false
		}
		values = []string{quote(values[0])}
	case key == transport.HeaderContentType:
		if len(values) != 1 {
			return false
		}
		fallthrough
	default:
		values = slices.Clone(values)
	}
	dst[canonical(key)] = values
	return true
}

const fieldHeaderKey = "intermodal-header"

// SplitHeader divides the fields of an HTTP request or reply that is a call's into the message's header and the one for
// Peer.Header. The latter gets each [PeerField] and what Connection names; the message gets all other fields, and what
// [FieldHeader] carries, which replaces fields of the same name. Keys are in lower case. A field whose name is no legal
// key is dropped. A value that is not UTF-8 is read as Latin-1, as old HTTP has it; under a -bin key it is base64, with
// or without padding, several of them perhaps joined by commas, or else taken as it is; an idempotency-key may be quoted.
//
// The values may share memory with h, which must not change from then on.
//
// The error is CodeInvalidArgument for a malformed FieldHeader, and CodeResourceExhausted for a header that is too large.
func SplitHeader(h http.Header) (message, peer transport.Header, err error) {
	message, peer = make(transport.Header, 8), make(transport.Header, 8)
	hop := h["Connection"]
	for name, values := range h {
		f := fieldNamed(name)
		switch {
		case f.key == "" || len(values) == 0:
		case f.peer || len(hop) > 0 && listed(hop, f.key):
			addPeer(peer, f.key, values)
		case f.key == fieldHeaderKey:
		case message[f.key] == nil && asIs(f.key, values):
			message[f.key] = values[:len(values):len(values)]
		default:
			message[f.key] = append(message[f.key], fieldValues(f.key, values)...)
		}
	}
	if lists := h[FieldHeader]; len(lists) > 0 {
		if err := parseLists(message, lists); err != nil {
			return nil, nil, err
		}
	}
	return message, peer, message.Check()
}

// PeerHeader returns the part of an HTTP header that is for Peer.Header, see [SplitHeader].
func PeerHeader(h http.Header) transport.Header {
	peer := make(transport.Header, 8)
	hop := h["Connection"]
	for name, values := range h {
		if f := fieldNamed(name); f.key != "" && len(values) > 0 && (f.peer || len(hop) > 0 && listed(hop, f.key)) {
			addPeer(peer, f.key, values)
		}
	}
	return peer
}

func addPeer(peer transport.Header, key string, values []string) {
	if peer[key] == nil && allUTF8(values) {
		peer[key] = values[:len(values):len(values)]
		return
	}
	for _, v := range values {
		peer[key] = append(peer[key], latin1(v))
	}
}

// asIs reports whether the lines of a field are its values. Then the slice is shared: a header is read-only.
func asIs(key string, lines []string) bool {
	return !isBin(key) && key != transport.HeaderIdempotencyKey && allUTF8(lines)
}

func allUTF8(values []string) bool {
	for _, v := range values {
		if !utf8.ValidString(v) {
			return false
		}
	}
	return true
}

// A field is a name as a header has it.
type field struct {
	key  string // in lower case; "" if it is no legal key
	peer bool   // see PeerField
}

// fields are those that are known, by the names that net/http gives them: most requests have no others.
var fields = func() map[string]field {
	m := map[string]field{}
	for k := range peerFields {
		m[textproto.CanonicalMIMEHeaderKey(k)] = field{k, true}
	}
	for _, k := range strings.Fields("accept accept-language accept-charset cache-control content-type content-language " +
		"etag expires idempotency-key if-match if-none-match if-modified-since if-unmodified-since intermodal-header intermodal-id " +
		"last-modified link location prefer preference-applied range retry-after traceparent tracestate baggage vary x-request-id " +
		"x-forwarded-for x-forwarded-host x-forwarded-proto sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-ch-ua") {
		m[textproto.CanonicalMIMEHeaderKey(k)] = field{k, PeerField(k)}
	}
	return m
}()

// canonicals are the names of fields, by their keys.
var canonicals = func() map[string]string {
	m := map[string]string{}
	for name, f := range fields {
		m[f.key] = name
	}
	return m
}()

func canonical(key string) string {
	if name, ok := canonicals[key]; ok {
		return name
	}
	return textproto.CanonicalMIMEHeaderKey(key)
}

func fieldNamed(name string) field {
	if f, ok := fields[name]; ok {
		return f
	}
	k := strings.ToLower(name)
	if !legalKey(k) {
		return field{}
	}
	return field{k, PeerField(k)}
}

// listed reports whether one of the comma-separated lists has name.
func listed(lists []string, name string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(item), name) {
				return true
			}
		}
	}
	return false
}

// fieldValues returns what the lines of an HTTP field mean under key.
func fieldValues(key string, lines []string) []string {
	vs := make([]string, 0, len(lines))
	for _, v := range lines {
		switch {
		case isBin(key):
			vs = appendBin(vs, v)
		case key == transport.HeaderIdempotencyKey:
			vs = append(vs, latin1(unquoteField(v)))
		default:
			vs = append(vs, latin1(v))
		}
	}
	return vs
}

// appendBin appends the decoded items of line, or line itself if it is no list of base64.
func appendBin(vs []string, line string) []string {
	n := len(vs)
	for item := range strings.SplitSeq(line, ",") {
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(textproto.TrimString(item), "="))
		if err != nil {
			return append(vs[:n], line)
		}
		vs = append(vs, string(b))
	}
	return vs
}

// AppendHeaderList appends h as one line of ASCII, without CR, LF, quotes or per cent signs:
//
//	key=value,key=value,key=~base64
//
// A pair for each value, sorted by key. A value is written as it is if it is not empty, is visible ASCII, with spaces
// perhaps inside, without any of " % , \ and without a leading ~. Else, or under a -bin key, it is ~ and its bytes in
// base64url without padding. So people and programs can write the simple ones: ttl=5000,priority=7.
func AppendHeaderList(dst []byte, h transport.Header) []byte {
	keys := make([]string, 0, 16)
	start := len(dst)
	for _, k := range sortedKeys(keys, h) {
		dst = appendPairs(dst, start, k, h[k])
	}
	return dst
}

// appendPairs appends the pairs of one key to the list that begins at start.
func appendPairs(dst []byte, start int, key string, values []string) []byte {
	for _, v := range values {
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, key...)
		dst = append(dst, '=')
		if !isBin(key) && plain(v) && v[0] != '~' && !strings.ContainsAny(v, `"%,\`) {
			dst = append(dst, v...)
			continue
		}
		dst = append(dst, '~')
		dst = base64.RawURLEncoding.AppendEncode(dst, []byte(v))
	}
	return dst
}

// ParseHeaderList reads what [AppendHeaderList] writes, and is lenient about spaces around pairs, empty pairs and
// upper-case keys. The result is legal, see Header.Check, and nil if there are no pairs. Errors are CodeInvalidArgument,
// and CodeResourceExhausted for a header that is too large.
func ParseHeaderList(s string) (transport.Header, error) {
	h := transport.Header{}
	if err := parseLists(h, []string{s}); err != nil {
		return nil, err
	}
	if len(h) == 0 {
		return nil, nil
	}
	return h, h.Check()
}

// parseLists reads lists into dst. Their keys replace those of dst.
func parseLists(dst transport.Header, lists []string) error {
	for _, list := range lists {
		for pair := range strings.SplitSeq(list, ",") {
			if k, _, ok := cutPair(pair); ok {
				delete(dst, k)
			}
		}
	}
	for _, list := range lists {
		for pair := range strings.SplitSeq(list, ",") {
			k, v, ok := cutPair(pair)
			if !ok {
				continue
			}
			if !legalKey(k) {
				return transport.Errorf(transport.CodeInvalidArgument, "a header list has a pair without a legal key")
			}
			if enc, is := strings.CutPrefix(v, "~"); is {
				b, err := base64.RawURLEncoding.DecodeString(enc)
				if err != nil {
					return transport.Errorf(transport.CodeInvalidArgument, "the header %q is not base64url", k)
				}
				v = string(b)
			}
			if !isBin(k) && !utf8.ValidString(v) {
				return transport.Errorf(transport.CodeInvalidArgument, "the header %q is not UTF-8", k)
			}
			dst[k] = append(dst[k], v)
		}
	}
	return nil
}

// cutPair cuts a pair of a header list; without "=" the key is "". It is false for an empty pair.
func cutPair(pair string) (key, value string, ok bool) {
	if pair = strings.Trim(pair, " \t"); pair == "" {
		return "", "", false
	}
	key, value, ok = strings.Cut(pair, "=")
	if !ok {
		return "", "", true
	}
	return strings.ToLower(key), value, true
}

func isBin(key string) bool { return strings.HasSuffix(key, "-bin") }

// legalKey is the rule of transport.Header.
func legalKey(k string) bool {
	if k == "" || len(k) > 64 {
		return false
	}
	for i := 0; i < len(k); i++ {
		if c := k[i]; !fieldChar(c) && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// fieldName reports whether a legal key is one that no HTTP intermediary drops.
func fieldName(k string) bool {
	for i := 0; i < len(k); i++ {
		if !fieldChar(k[i]) {
			return false
		}
	}
	return true
}

func fieldChar(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' }

// plain reports whether v is visible ASCII with spaces only inside, and not empty.
func plain(v string) bool {
	if v == "" || v[0] == ' ' || v[len(v)-1] == ' ' {
		return false
	}
	for i := 0; i < len(v); i++ {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return true
}

// latin1 returns v, from Latin-1 if it is not UTF-8.
func latin1(v string) string {
	if utf8.ValidString(v) {
		return v
	}
	b := make([]byte, 0, len(v)+8)
	for i := 0; i < len(v); i++ {
		b = utf8.AppendRune(b, rune(v[i]))
	}
	return string(b)
}

// quote makes a plain v a string of RFC 8941 section 3.3.3.
func quote(v string) string {
	b := make([]byte, 0, len(v)+2)
	b = append(b, '"')
	for i := 0; i < len(v); i++ {
		if v[i] == '"' || v[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, v[i])
	}
	return string(append(b, '"'))
}

// unquoteField undoes quote. What is no quoted string is returned as it is.
func unquoteField(v string) string {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return v
	}
	b := make([]byte, 0, len(v))
	for i := 1; i < len(v)-1; i++ {
		c := v[i]
		if c == '\\' {
			if i++; i == len(v)-1 {
				return v
			}
			c = v[i]
		} else if c == '"' {
			return v
		}
		b = append(b, c)
	}
	return string(b)
}
