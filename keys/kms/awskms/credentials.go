package awskms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Credentials says where the credentials come from. Exactly one source is set:
// File, WebIdentity or Instance.
type Credentials struct {
	// File is a shared credentials file with static keys, read again every
	// fileLifetime so that a rotation needs no restart. Profile is the section;
	// default "default". Other settings of the section (role_arn,
	// credential_process, …) are not followed.
	File, Profile string
	// WebIdentity exchanges a token for a role, as on EKS.
	WebIdentity *WebIdentity
	// Instance asks the EC2 instance metadata service, version 2.
	Instance bool
}

// WebIdentity is the role to assume and the file whose content is the token; the
// file is read again for each renewal.
type WebIdentity struct {
	RoleARN, SessionName, TokenFile string
	// Endpoint replaces the regional STS endpoint. Optional, with the rules of
	// Config.Endpoint.
	Endpoint string
}

const (
	fileLifetime = 5 * time.Minute
	// instanceEndpoint is given because the SDK would take one from the environment.
	instanceEndpoint = "http://169.254.169.254"
	// renewAhead is how long before the end of a session a new one is fetched.
	renewAhead = 2 * time.Minute
)

// provider returns a caching provider, or an error wrapping ErrConfig.
func (c Credentials) provider(region string, client *http.Client) (aws.CredentialsProvider, error) {
	var source aws.CredentialsProvider
	sources := 0
	if c.File != "" {
		sources++
		source = aws.CredentialsProviderFunc(c.fromFile)
	}
	if c.WebIdentity != nil {
		sources++
		w := *c.WebIdentity
		if w.RoleARN == "" || w.SessionName == "" || w.TokenFile == "" {
			return nil, fmt.Errorf("%w: WebIdentity needs RoleARN, SessionName and TokenFile", ErrConfig)
		}
		if err := checkEndpoint(w.Endpoint); err != nil {
			return nil, err
		}
		source = w.provider(region, client)
	}
	if c.Instance {
		sources++
		source = ec2rolecreds.New(func(o *ec2rolecreds.Options) {
			o.Client = imds.New(imds.Options{
				Endpoint:          instanceEndpoint,
				HTTPClient:        client,
				ClientEnableState: imds.ClientEnabled,
				EnableFallback:    aws.FalseTernary, // version 2 only
			})
		})
	}
	if sources != 1 {
		return nil, fmt.Errorf("%w: Credentials needs exactly one of File, WebIdentity and Instance", ErrConfig)
	}
	return aws.NewCredentialsCache(source, func(o *aws.CredentialsCacheOptions) {
		o.ExpiryWindow = renewAhead
		o.ExpiryWindowJitterFrac = 0.5
	}), nil
}

func (w WebIdentity) provider(region string, client *http.Client) aws.CredentialsProvider {
	options := sts.Options{Region: region, HTTPClient: client, Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 2 // within the deadline of the attempt that needs it
	})}
	if w.Endpoint != "" {
		options.BaseEndpoint = aws.String(w.Endpoint)
	}
	return stscreds.NewWebIdentityRoleProvider(sts.New(options), w.RoleARN, stscreds.IdentityTokenFile(w.TokenFile),
		func(o *stscreds.WebIdentityRoleOptions) { o.RoleSessionName = w.SessionName })
}

// fromFile reads the static keys of the profile. The credentials carry an end, so
// that the cache around it asks again.
func (c Credentials) fromFile(ctx context.Context) (aws.Credentials, error) {
	profile := c.Profile
	if profile == "" {
		profile = "default"
	}
	shared, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles = []string{c.File}
		o.ConfigFiles = []string{} // not nil, which would mean those of the home directory
	})
	if err != nil || !shared.Credentials.HasKeys() {
		// Not the error itself: a parser's complaint may quote the file.
		return aws.Credentials{}, errors.New("awskms: the credentials file has no keys for the profile")
	}
	found := shared.Credentials
	found.Source = "file"
	found.CanExpire = true
	found.Expires = time.Now().Add(fileLifetime + renewAhead)
	return found, nil
}
