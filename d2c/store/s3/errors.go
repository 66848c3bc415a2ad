// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

var (
	// errConditions is for stores that are not like S3 in what this package stands on.
	errConditions = errors.New("the store does not keep two writers apart: it must support If-None-Match and If-Match " +
		"when an object is put (AWS S3 does; of compatible stores, take a newer release or another)")
	errNoETag = errors.New("the store does not tell the ETag of what was put: it cannot be used")
	errStale  = errors.New("the store does not show what was put just before: it cannot be used")
	// errUnknown is for an entry of which others have made a part of a snapshot, or not.
	errUnknown = errors.New("no answer came, and others have gone on: whether the entry is in the log cannot be told")
	errMissing = errors.New("the object is gone, though the head names it: somebody has deleted it")
	errBusy    = errors.New("others put one head after the other")
	errContent = errors.New("fewer bytes came than were announced")
)

// Reason classifies why a request failed, for counting.
type Reason string

// The reasons.
const (
	// Unreachable means no connection, no answer in time, or a server that cannot serve.
	Unreachable Reason = "unreachable"
	// Credentials means a wrong or expired key, or a missing permission.
	Credentials Reason = "credentials"
	// Bucket means that there is no bucket of that name, or that it is in another region.
	Bucket Reason = "bucket"
	// Throttled means that the store asks for fewer requests.
	Throttled Reason = "throttled"
	// Unfit means that the store ignores conditions.
	Unfit Reason = "unfit"
	// Damaged means that an object is missing, cannot be read, or has a newer version.
	Damaged Reason = "damaged"
	// Other is everything else.
	Other Reason = "other"
)

// Reasons lists all reasons.
var Reasons = []Reason{Unreachable, Credentials, Bucket, Throttled, Unfit, Damaged, Other}

// ReasonOf returns why a call failed.
func ReasonOf(err error) Reason {
	code, status := codeOf(err), statusOf(err)
	switch {
	case errors.Is(err, errConditions), errors.Is(err, errNoETag), errors.Is(err, errStale), code == "NotImplemented":
		return Unfit
	case errors.Is(err, errDamaged), errors.Is(err, errNewer), errors.Is(err, errMissing):
		return Damaged
	case code == "NoSuchBucket", redirected(err):
		return Bucket
	case code == "RequestTimeTooSkewed":
		return Other
	case slices.Contains([]string{"SlowDown", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"}, code), status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusForbidden, status == http.StatusUnauthorized, slices.Contains(badCredentials, code), unsigned(err):
		return Credentials
	case status == 0 && code == "" && !errors.Is(err, errUnknown) && !errors.Is(err, errBusy), status >= 500:
		return Unreachable
	}
	return Other
}

// Mistake reports whether waiting cannot help, because credentials, bucket or store are wrong.
func Mistake(err error) bool {
	switch ReasonOf(err) {
	case Credentials:
		return !unsigned(err) // credentials that cannot be had now may be had later
	case Bucket, Unfit:
		return true
	}
	return false
}

// badCredentials are the codes of answers that are not of status 403.
var badCredentials = []string{"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}

// codeOf returns the code in the answer of the store, if there is one.
func codeOf(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// statusOf returns the HTTP status of the answer, zero if there is none.
func statusOf(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.HTTPStatusCode()
	}
	return 0
}

// unsigned reports whether there were no credentials to sign a request with. The client has no error of its own for it.
func unsigned(err error) bool {
	return err != nil && strings.Contains(err.Error(), "get identity: ")
}

// redirected reports whether the bucket is in another region, and the request was not signed for that.
func redirected(err error) bool {
	status := statusOf(err)
	return status == http.StatusMovedPermanently || status == http.StatusTemporaryRedirect ||
		slices.Contains([]string{"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}, codeOf(err))
}

// regionOf returns where the bucket is, if the store says so.
func regionOf(err error) string {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// absent reports whether there is no such object.
func absent(err error) bool {
	code := codeOf(err)
	return code == "NoSuchKey" || code == "NotFound" && statusOf(err) == http.StatusNotFound
}

// unchanged reports whether the object is the one that was named in If-None-Match.
func unchanged(err error) bool { return statusOf(err) == http.StatusNotModified }

// conditional reports whether the object that was to be put was not, because of what is there, or is not.
func conditional(err error) bool {
	return statusOf(err) == http.StatusPreconditionFailed || codeOf(err) == "PreconditionFailed" || absent(err)
}

// mayPass reports whether the same request may succeed before long.
func mayPass(err error) bool {
	switch {
	case errors.Is(err, context.Canceled), unsigned(err), errors.Is(err, errNoETag):
		return false
	case errors.Is(err, errContent):
		return true
	}
	status := statusOf(err)
	return refused(err) || status == 0 && codeOf(err) == "" || status >= 500 && status != http.StatusNotImplemented ||
		status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || codeOf(err) == "RequestTimeout"
}

// refused reports whether the store has not done what it was asked for, and may do it if it is asked again: it had two requests for
// the object at once, or takes our clock to be wrong, by which the client sets its own.
func refused(err error) bool {
	return slices.Contains([]string{"ConditionalRequestConflict", "OperationAborted", "RequestTimeTooSkewed"}, codeOf(err)) ||
		statusOf(err) == http.StatusConflict
}

// unsure reports whether what failed may have been done, or may be yet.
func unsure(err error) bool {
	var refusedToConnect *net.OpError
	if errors.As(err, &refusedToConnect) && refusedToConnect.Op == "dial" {
		return false
	}
	status := statusOf(err)
	return !refused(err) && !unsigned(err) && (status == 0 || status >= 500 || status == http.StatusRequestTimeout || codeOf(err) == "RequestTimeout")
}

// explain adds where it happened, and to an error that a store does not explain what it means. What the client says has no secret in
// it, nor an access key.
func (b *bucket) explain(doing string, err error) error {
	hint := ""
	switch code := codeOf(err); {
	case code == "NoSuchBucket":
		hint = "there is no such bucket: "
	case redirected(err):
		hint = "the bucket is in another region, or of another endpoint: "
		if region := regionOf(err); region != "" {
			hint = fmt.Sprintf("the bucket is in region %s: ", region)
		}
	case code == "RequestTimeTooSkewed":
		hint = "the clock of this machine, or of the store, is wrong: "
	case slices.Contains([]string{"InvalidAccessKeyId", "SignatureDoesNotMatch"}, code) || slices.Contains(badCredentials, code):
		hint = "the store does not accept the credentials: "
	case unsigned(err):
		hint = "there are no credentials: "
	case statusOf(err) == http.StatusForbidden:
		hint = "a permission is missing, or the bucket is somebody else's (needed are s3:GetObject, s3:PutObject and s3:DeleteObject on " +
			b.prefix + "/*, and s3:ListBucket): "
	case ReasonOf(err) == Throttled:
		hint = "the store asks for fewer requests: "
	case code == "NotImplemented":
		return fmt.Errorf("s3 bucket %s: %s: %w: %w", b.name, doing, errConditions, err)
	}
	return fmt.Errorf("s3 bucket %s: %s: %s%w", b.name, doing, hint, err)
}
